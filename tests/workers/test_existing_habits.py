"""Habits of existing Celery applications that must survive ``install``: none of them may lose a job or its history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jobledger.controller.retry import open_body
from jobledger.history.event import EventKind
from jobledger.history.job import FailureKind, JobStatus
from jobledger.workers.tombstones import KEY
from jobledger.workers.worker_node import NODES_KEY

APPS = Path(__file__).parent.parent / "apps"

#: What a user's module adds to the tests' application.
HABITS = f"""
import runpy
from celery.exceptions import Reject

app = runpy.run_path({str(APPS / "jobs.py")!r})["app"]

@app.task(name="habits.hand_back", bind=True, shared=False)
def hand_back(self):
    raise Reject("not now", requeue=True)

@app.task(name="habits.relay", bind=True, shared=False)
def relay(self, job_id):
    app.tasks["jobs.add"].apply_async((1, 2), task_id=job_id, headers=self.request.headers)
"""


@pytest.fixture
def habits(site: Any, tmp_path: Path) -> Path:
    """Return a directory whose ``jobs`` module is the tests' application with a user's habits."""
    directory = tmp_path / "habits"
    directory.mkdir()
    (directory / "jobs.py").write_text(HABITS)
    return directory


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # kombu's transport, not ours
def test_jobs_run_and_are_recorded_on_a_broker_that_is_not_redis(site: Any, tmp_path: Path) -> None:
    site.environment["JOBLEDGER_BROKER_URL"] = f"sqla+sqlite:///{tmp_path}/broker.db"
    worker = site.start_worker()

    submitted = site.controller.submit("jobs.add", [1, 2])
    site.run_python("import jobs; jobs.app.tasks['jobs.add'].apply_async((3, 4), task_id='plain')")

    assert site.wait_for_end(submitted).end.result_ref == "3"
    assert site.wait_for_end("plain").end.result_ref == "7"
    assert worker.log.read_text().count("is not Redis or Valkey") == 1


def test_a_job_that_hands_back_an_acknowledged_message_has_failed(site: Any, habits: Path) -> None:
    site.start_worker(PYTHONPATH=str(habits))
    site.run_python(
        "import jobs; jobs.app.tasks['habits.hand_back'].apply_async(task_id='once')", PYTHONPATH=str(habits)
    )

    end = site.wait_for_end("once").end

    assert (end.status, end.failure_kind) == (JobStatus.FAILED, FailureKind.REJECTED)
    assert "acks_late" in end.error_message


def test_a_job_sent_with_its_senders_headers_is_recorded_as_a_job_of_its_own(site: Any, habits: Path) -> None:
    site.start_worker(PYTHONPATH=str(habits))

    site.run_python(
        "import jobs; jobs.app.tasks['habits.relay'].apply_async(('child',), task_id='parent', headers={'trace': 'x'})",
        PYTHONPATH=str(habits),
    )

    entry = site.wait_for_end("child")
    assert (entry.status, entry.task) == (JobStatus.COMPLETED, "jobs.add")
    body = open_body(site.store, site.controller._vault, entry)
    assert (body.args, body.headers) == ([1, 2], {"trace": "x"})


def test_an_eager_job_that_retries_leaves_no_trace(site: Any, tmp_path: Path) -> None:
    site.run_python(f"import jobs; print(jobs.app.tasks['jobs.flaky'].apply(({str(tmp_path / 'runs')!r}, 1)).get())")

    assert (tmp_path / "runs").read_text() == "xx"
    assert site.store.list_jobs() == []


def test_a_node_that_ends_leaves_a_successor_of_its_name_on_the_brokers_list(site: Any) -> None:
    worker = site.start_worker()
    successor = json.dumps({"boot_id": "successor", "home": ""}).encode()
    site.redis.hset(NODES_KEY, worker.name, successor)

    worker.stop()

    assert site.redis.hgetall(NODES_KEY) == {worker.name.encode(): successor}


def test_a_worker_whose_snapshot_key_is_wrong_never_starts_jobs_without_the_fence(site: Any, tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    denied = site.controller.submit("jobs.note", [str(truth), "ran"])
    site.redis.zadd(KEY, {denied: 1})

    worker = site.start_worker(wait=False, JOBLEDGER_SNAPSHOT_KEY="not a key")
    code = worker.process.poll()
    if code is None:
        site.wait_for_end(denied)

    assert EventKind.STARTED not in site.kinds(denied)
    assert not truth.exists()
