"""When a cancel cannot be proven yet, what it says, and how the leader finishes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from jobledger.controller.leader import Leader
from jobledger.controller.recovery import Recovery
from jobledger.errors import BrokerUnavailable
from jobledger.history.job import JobStatus
from jobledger.workers.tombstones import KEY


def lead(site: Any) -> Leader:
    return Leader(site.controller, site.store, Recovery(site.store, site.controller.queues))


def test_a_node_that_does_not_answer_keeps_the_job_cancelling_until_it_has_died(
    site: Any, eventually: Any, tmp_path: Path
) -> None:
    worker = site.start_worker()
    job_id = site.controller.submit("jobs.wait_for", [str(tmp_path / "gate")])
    site.wait_for_status(job_id, JobStatus.RUNNING)
    os.kill(worker.pid, signal.SIGSTOP)

    outcome = site.controller.cancel_job(job_id)

    assert (outcome.status, outcome.waiting_for) == (JobStatus.RUNNING, f"node {worker.name} does not answer")
    worker.kill()
    site.wait_for_node_end(worker)
    eventually(lambda: lead(site).work_once() and site.status(job_id) is JobStatus.CANCELLED)


def test_a_node_that_comes_back_carries_the_cancel_out(site: Any, eventually: Any) -> None:
    worker = site.start_worker()
    job_id = site.controller.submit("jobs.polite", [60])
    site.wait_for_status(job_id, JobStatus.RUNNING)
    os.kill(worker.pid, signal.SIGSTOP)
    assert not site.controller.cancel_job(job_id).is_proven

    os.kill(worker.pid, signal.SIGCONT)

    leader = lead(site)
    eventually(lambda: leader.work_once() and site.status(job_id) is JobStatus.CANCELLED)


def test_a_job_that_waits_in_a_node_for_its_time_is_proven_cancelled_by_the_nodes_answer(
    site: Any, tmp_path: Path, eventually: Any
) -> None:
    site.start_worker()
    truth = tmp_path / "truth"
    job_id = site.run_python(
        f"import jobs; print(jobs.app.tasks['jobs.note'].apply_async(({str(truth)!r}, 'ran'), countdown=3).id)"
    ).strip()
    eventually(lambda: site.status(job_id) is JobStatus.QUEUED)
    eventually(lambda: site.redis.hlen("unacked") == 1)

    outcome = site.controller.cancel_job(job_id)

    assert outcome.status is JobStatus.CANCELLED
    due = time.monotonic() + 3.5
    eventually(lambda: time.monotonic() > due)
    assert not truth.exists()


def test_a_plain_worker_without_jobledger_cannot_be_asked_and_is_named(
    site: Any, eventually: Any, tmp_path: Path
) -> None:
    (tmp_path / "plain.py").write_text(
        "from celery import Celery\n"
        f"app = Celery(broker={site.redis_url!r})\n"
        "app.conf.broker_transport_options = {'priority_steps': list(range(10))}\n"
        "@app.task(name='jobs.wait_for')\n"
        "def wait_for(path, trace=None):\n"
        "    import pathlib, time\n"
        "    while not pathlib.Path(path).exists(): time.sleep(0.01)\n"
    )
    log = tmp_path / "log"
    with log.open("wb") as output:
        plain = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "plain", "worker", "-n", "plain@test", "-c", "1", "-l", "info"],
            cwd=tmp_path,
            stdout=output,
            stderr=output,
        )
    try:
        eventually(lambda: "plain@test ready" in log.read_text(), 30)
        job_id = site.controller.submit("jobs.wait_for", [str(tmp_path / "gate")])
        eventually(lambda: f"wait_for[{job_id}] received" in log.read_text())

        outcome = site.controller.cancel_job(job_id)

        assert outcome.status is JobStatus.QUEUED
        assert "plain@test runs without Jobledger" in (outcome.waiting_for or "")
    finally:
        (tmp_path / "gate").touch()
        plain.terminate()
        plain.wait(30)


def test_a_broker_that_is_away_keeps_the_intent_and_the_leader_finishes_it(
    site: Any, eventually: Any, tmp_path: Path
) -> None:
    job_id = site.controller.submit("jobs.add", [1, 2])
    url = site.app.conf.broker_url
    site.controller.close()
    site.app.conf.broker_url = "redis://127.0.0.1:1/0"

    with pytest.raises(BrokerUnavailable, match=f"The cancel of {job_id} is recorded"):
        site.controller.cancel_job(job_id, actor="ann")

    assert site.store.get_job(job_id).cancel_actor == "ann"
    site.app.conf.broker_url = url
    assert lead(site).work_once()
    assert site.status(job_id) is JobStatus.CANCELLED


def test_the_leader_writes_the_deny_set_again_after_the_broker_lost_it(site: Any) -> None:
    job_id = site.controller.submit("jobs.add", [1, 2])
    site.controller.cancel_job(job_id)
    site.redis.flushdb()

    lead(site).work_once()

    assert site.redis.zscore(KEY, job_id) is not None


def test_the_leader_takes_dead_nodes_off_the_brokers_list_and_leaves_live_ones(site: Any, eventually: Any) -> None:
    dead, alive = site.start_worker(), site.start_worker()
    dead.kill()
    site.wait_for_node_end(dead)

    lead(site).work_once()

    assert list(site.redis.hgetall("jobledger:nodes")) == [alive.name.encode()]


def test_only_one_of_two_leaders_works(site: Any) -> None:
    first, second = lead(site), lead(site)

    assert first.work_once()
    assert not second.work_once()
