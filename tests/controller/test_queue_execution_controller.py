"""Submission, dispatch and retry, against a real broker and a real ledger."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from jobledger.errors import (
    BrokerUnavailable,
    HistoryUnavailable,
    InvalidJob,
    JobActionNotAllowed,
    SnapshotUnavailable,
)
from jobledger.history.job import FailureKind, JobStatus
from jobledger.workers.default_app import make_app

NESTED = {"grüße": [1, 2.5, None, {"deep": [True, ""]}], "null": None, "empty": "", "big": 2**60}


def queued_messages(site: Any) -> int:
    """Count what lies in the queues, over all levels."""
    return sum(site.redis.llen(key) for key in site.redis.keys("celery*"))


@pytest.mark.parametrize(
    ("submission", "field"),
    [
        ({"task": "jobs.unheard_of"}, "task"),
        ({"task": "jobs.echo", "args": "text"}, "args"),
        ({"task": "jobs.echo", "args": {"a": 1}}, "args"),
        ({"task": "jobs.echo", "args": [float("nan")]}, "args[0]"),
        ({"task": "jobs.echo", "args": [{"when": datetime(2026, 1, 1)}]}, "args[0].when"),
        ({"task": "jobs.echo", "args": [b"bytes"]}, "args[0]"),
        ({"task": "jobs.echo", "kwargs": {"a": {1, 2}}}, "kwargs.a"),
        ({"task": "jobs.echo", "kwargs": [1]}, "kwargs"),
        ({"task": "jobs.echo", "args": ["x" * 1_100_000]}, "args"),
        ({"task": "jobs.add", "args": [1]}, "args"),
        ({"task": "jobs.add", "args": [1, 2], "kwargs": {"z": 3}}, "args"),
        ({"task": "jobs.echo", "priority": "urgent"}, "priority"),
        ({"task": "jobs.echo", "priority": 10}, "priority"),
        ({"task": "jobs.echo", "priority": True}, "priority"),
        ({"task": "jobs.echo", "queue": ""}, "queue"),
        ({"task": "jobs.echo", "queue": "a\nb"}, "queue"),
        ({"task": "jobs.echo", "tags": "one"}, "tags"),
        ({"task": "jobs.echo", "tags": ["a" * 300]}, "tags"),
        ({"task": "jobs.echo", "time_limit": -1}, "time_limit"),
        ({"task": "jobs.echo", "cancel_grace": "ten"}, "cancel_grace"),
        ({"task": "jobs.echo", "job_id": "no spaces please"}, "job_id"),
        ({"task": "jobs.echo", "job_id": "x" * 129}, "job_id"),
    ],
)
def test_bad_input_is_refused_with_its_field_before_anything_changes(
    site: Any, submission: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidJob) as refusal:
        site.controller.submit(**submission)

    assert refusal.value.field == field
    assert str(refusal.value).startswith(f"{field}: ")
    assert len(str(refusal.value)) < 500
    assert site.store.list_jobs() == []
    assert queued_messages(site) == 0


def test_one_bad_job_among_many_submits_none(site: Any) -> None:
    from jobledger.controller.submission import Submission

    with pytest.raises(InvalidJob):
        site.controller.submit_many([Submission(task="jobs.add", args=[1, 2]), Submission(task="jobs.add", args=[1])])

    assert site.store.list_jobs() == []


def test_an_id_of_the_callers_own_submits_once(site: Any) -> None:
    first = site.controller.submit("jobs.add", [1, 2], job_id="order-4711")
    second = site.controller.submit("jobs.add", [1, 2], job_id="order-4711")

    assert first == second == "order-4711"
    assert queued_messages(site) == 1
    assert len(site.store.get_job_events("order-4711")) == 1
    for other in (("jobs.add", [1, 3]), ("jobs.echo", [1, 2])):
        with pytest.raises(InvalidJob, match="belongs to another job"):
            site.controller.submit(*other, job_id="order-4711")
    assert queued_messages(site) == 1


def test_a_broker_that_is_away_makes_the_job_failed_and_says_so(site: Any, eventually: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        site.environment["JOBLEDGER_BROKER_URL"] = f"redis://:hunter2@127.0.0.1:{closed.getsockname()[1]}/0"

    with pytest.raises(BrokerUnavailable) as error:
        site.controller.submit("jobs.add", [1, 2])

    assert "hunter2" not in str(error.value)
    [entry] = site.store.list_jobs()
    assert entry.status is JobStatus.FAILED
    assert entry.end.failure_kind is FailureKind.DISPATCH
    assert "hunter2" not in entry.last_error


def test_a_ledger_that_is_away_refuses_the_job_and_nothing_is_sent(site: Any) -> None:
    site.controller.submit("jobs.add", [1, 2])
    site.store.close()
    (site.data_dir / "ledger.db").unlink()
    (site.data_dir / "ledger.db").mkdir()

    with pytest.raises(HistoryUnavailable):
        site.controller.submit("jobs.add", [3, 4])

    assert queued_messages(site) == 1


class LossyProxy:
    """Stands before a broker; cuts the connection after it has passed on the first LPUSH, before the answer."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open += [client, server]
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                cuts = b"LPUSH" in data and self.cuts == 0
                if cuts:
                    self.cuts += 1
                    client.shutdown(socket.SHUT_RDWR)
                server.sendall(data)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                client.sendall(data)


@pytest.fixture
def lossy(site: Any) -> Iterator[LossyProxy]:
    proxy = LossyProxy(int(site.redis_url.rsplit(":", 1)[1].split("/")[0]))
    site.environment["JOBLEDGER_BROKER_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
    yield proxy
    proxy.close()


def test_a_publishing_whose_answer_is_lost_leaves_one_copy_and_a_queued_job(
    site: Any, lossy: LossyProxy, eventually: Any
) -> None:
    job_id = site.controller.submit("jobs.add", [1, 2])

    assert lossy.cuts == 1
    eventually(lambda: queued_messages(site) == 1)
    entry = site.store.get_job(job_id)
    assert entry.status is JobStatus.QUEUED
    site.start_worker(JOBLEDGER_BROKER_URL=site.redis_url)
    assert site.wait_for_end(job_id).status is JobStatus.COMPLETED


# -- retry


def test_a_retry_is_the_same_job_again_and_leaves_the_old_one_as_it_was(site: Any) -> None:
    site.start_worker()
    job_id = site.controller.submit(
        "jobs.echo",
        [1, NESTED],
        {"b": None, "a": "x" * 500_000, "z": [[]]},
        priority=3,
        tags=["red", "blue"],
        group_id="g1",
        time_limit=100,
        soft_time_limit=90,
        headers={"tenant": "north"},
        cancel_grace=2,
    )
    before = site.wait_for_end(job_id)
    events = site.store.get_job_events(job_id)

    again = site.controller.retry_job(job_id)

    entry = site.wait_for_end(again)
    assert again != job_id
    assert site.store.get_job(job_id) == before
    assert site.store.get_job_events(job_id) == events
    assert site.store.get_snapshot(again).digest == site.store.get_snapshot(job_id).digest
    assert (entry.facts.retry_of, entry.facts.root_id) == (job_id, job_id)
    for field in ("task", "queue", "priority", "payload_summary", "tags", "group_id", "cancel_grace"):
        assert getattr(entry.facts, field) == getattr(before.facts, field), field
    third = site.controller.retry_job(again)
    assert site.store.get_job(third).facts.root_id == job_id


def test_a_retry_with_overrides_differs_only_there_and_says_where(site: Any) -> None:
    job_id = site.controller.submit("jobs.echo", ["a.jpg", {"size": 1}], {"steps": 20})
    site.controller.cancel_job(job_id)

    again = site.controller.retry_job(job_id, {"kwargs.steps": 30, "args.1.size": 2, "priority": "high"})

    site.start_worker()
    entry = site.wait_for_end(again)
    assert entry.end.result_ref == '{"args":["a.jpg",{"size":2}],"kwargs":{"steps":30}}'
    assert entry.facts.priority == 2
    assert entry.facts.overrides == '{"kwargs.steps":30,"args.1.size":2,"priority":"high"}'


@pytest.mark.parametrize(
    "override", ["steps", "args.7", "args.x", "args.0.deeper", "kwargs.none.deeper", "task", "args", ""]
)
def test_an_override_without_a_place_is_refused(site: Any, override: str) -> None:
    job_id = site.controller.submit("jobs.echo", ["a.jpg"])
    site.controller.cancel_job(job_id)

    with pytest.raises(InvalidJob):
        site.controller.retry_job(job_id, {override: 1})

    assert len(site.store.list_jobs()) == 1


def test_only_an_ended_job_can_be_retried(site: Any, tmp_path: Path) -> None:
    site.start_worker()
    job_id = site.controller.submit("jobs.wait_for", [str(tmp_path / "gate")])
    for status in (JobStatus.QUEUED, JobStatus.RUNNING):
        with pytest.raises(JobActionNotAllowed):
            site.controller.retry_job(job_id)
        if status is JobStatus.QUEUED:
            site.wait_for_status(job_id, JobStatus.RUNNING)
    (tmp_path / "gate").touch()
    assert site.wait_for_end(job_id).status is JobStatus.COMPLETED
    assert site.wait_for_end(site.controller.retry_job(job_id)).status is JobStatus.COMPLETED


def test_a_job_whose_arguments_were_too_large_to_keep_says_why_it_cannot_be_retried(site: Any) -> None:
    site.start_worker()
    job_id = site.run_python("import jobs; print(jobs.app.tasks['jobs.echo'].delay('x' * 2_000_000).id)").strip()
    site.wait_for_end(job_id)

    with pytest.raises(SnapshotUnavailable, match="too large"):
        site.controller.retry_job(job_id)


def test_without_a_key_no_body_is_recorded_anywhere(site: Any, data_dir: Path) -> None:
    """A broker that is not on this machine: no key is made, and nothing is kept in plain text."""
    site.environment["JOBLEDGER_BROKER_URL"] = site.redis_url.replace("127.0.0.1", "0.0.0.0")
    site.start_worker()
    job_id = site.run_python("import jobs; print(jobs.app.tasks['jobs.echo'].delay('a private letter').id)").strip()
    site.wait_for_end(job_id)

    with pytest.raises(SnapshotUnavailable, match="JOBLEDGER_SNAPSHOT_KEY"):
        site.controller.retry_job(job_id)
    assert site.store.get_snapshot(job_id) is None
    assert not (data_dir / "snapshot.key").exists()


def test_a_snapshot_sealed_with_another_key_is_refused_and_not_guessed(site: Any) -> None:
    from jobledger.history.snapshot import SnapshotVault, new_key

    job_id = site.controller.submit("jobs.echo", ["a"])
    site.controller.cancel_job(job_id)
    site.controller._vault = SnapshotVault((new_key(),))

    with pytest.raises(SnapshotUnavailable, match="another key"):
        site.controller.retry_job(job_id)


def test_arguments_are_nowhere_in_plain_text_in_ledger_and_journals(site: Any, data_dir: Path, eventually: Any) -> None:
    site.start_worker()
    secret = "the-long-secret-argument-" + "s" * 200
    plain = site.run_python(f"import jobs; print(jobs.app.tasks['jobs.echo'].delay(token={secret!r}).id)").strip()
    submitted = site.controller.submit("jobs.nap", [0], headers={"authorization": secret})

    for job_id in (plain, submitted):
        assert site.wait_for_end(job_id).status is JobStatus.COMPLETED

    files = [path for path in data_dir.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not [path for path in files if b"the-long-secret-argument" in path.read_bytes()]


# -- pipelines


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"stages": [{"name": "paint"}]}, "stages[0].name"),
        ({"stages": [{"name": "resize", "settings": {"width": "wide"}}]}, "stages[0].settings.width"),
        ({"stages": "all"}, "stages"),
        ({"stages": [{"name": "save"}], "metadata": {"api_key": "sk-1234567890abcdef1234"}}, "metadata.api_key"),
        ([], "pipeline"),
    ],
)
def test_a_bad_pipeline_is_refused_with_its_field(site: Any, config: Any, field: str) -> None:
    site.app = make_app(site.settings)

    with pytest.raises(InvalidJob) as refusal:
        site.controller.submit_pipeline_job(config)

    assert refusal.value.field == field
    assert site.store.list_jobs() == []
