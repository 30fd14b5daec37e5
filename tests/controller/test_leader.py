"""The leader goes on, whatever one of its duties meets."""

from __future__ import annotations

import os
import signal
from typing import Any

from celery import Celery
from jobledger.controller.leader import Leader
from jobledger.controller.recovery import Recovery
from jobledger.controller.submission import Submission, prepare
from jobledger.history.event import now
from jobledger.history.job import JobStatus
from jobledger.history.job_history_store import CancelIntent, JournalOffset, LeaseHold
from jobledger.workers.worker_node import NODES_KEY


def test_a_foreign_message_among_the_unacknowledged_ones_is_passed_over(site: Any) -> None:
    site.redis.hset("unacked", mapping={"a": b'[{"body": "", "headers": {}}, "", ""]', "b": b"not json"})
    site.redis.hset("unacked", "c", b'[{"headers": {"id": "job"}}, "", ""]')

    assert site.controller.queues.unacknowledged() == {"job"}


def test_a_duty_that_fails_ends_neither_the_leader_nor_its_other_duties(site: Any, caplog: Any) -> None:
    class Broken(Recovery):
        def recover(self, lease: LeaseHold) -> Any:
            raise RuntimeError("a defect")

    leader = Leader(site.controller, site.store, Broken(site.store, site.controller.queues))
    job_id = site.controller.submit("jobs.add", [1, 1])
    site.redis.flushdb()
    site.store.request_cancel(_intent(job_id))

    assert leader.work_once()

    assert site.status(job_id) is JobStatus.CANCELLED
    assert "a defect" in caplog.text


def test_a_job_goes_to_the_queue_that_its_task_names(site: Any) -> None:
    app: Celery = site.app
    app.tasks["jobs.add"].queue = "gpu"

    body = prepare(Submission(task="jobs.add", args=[1, 2]), app, site.settings, None).body

    assert body.queue == "gpu"


def test_a_job_whose_message_waits_in_its_queue_again_is_not_lost_with_its_node(site: Any) -> None:
    job_id = site.controller.submit("jobs.nap", [60])
    [key] = [key for key in site.redis.keys("celery*") if site.redis.type(key) == b"list"]
    message = site.redis.lindex(key, 0)
    worker = site.start_worker()
    site.wait_for_status(job_id, JobStatus.RUNNING)
    recovery = Recovery(site.store, site.controller.queues)
    worker.kill()
    site.wait_for_node_end(worker)
    assert [verdict.job_id for verdict in recovery.verdicts()] == [job_id]

    site.redis.lpush(key, message)

    assert recovery.verdicts() == []


def test_the_verdict_on_a_node_with_a_full_disk_says_that_the_end_may_be_missing(site: Any) -> None:
    job_id = site.controller.submit("jobs.nap", [60])
    worker = site.start_worker()
    site.wait_for_status(job_id, JobStatus.RUNNING)
    [node] = site.store.list_nodes()
    worker.kill()
    site.wait_for_node_end(worker)
    recovery = Recovery(site.store, site.controller.queues)
    [verdict] = recovery.verdicts()
    assert "could not be written" not in verdict.evidence

    site.store.append([], JournalOffset(journal=f"{node.boot_id}.full", start=0, end=1, dropped=3))

    [verdict] = recovery.verdicts()
    assert "3 events of that node could not be written, maybe its end among them" in verdict.evidence


def test_a_node_that_the_broker_has_forgotten_is_still_waited_for(site: Any, eventually: Any, tmp_path: Any) -> None:
    worker = site.start_worker()
    job_id = site.controller.submit("jobs.wait_for", [str(tmp_path / "gate")])
    site.wait_for_status(job_id, JobStatus.RUNNING)
    os.kill(worker.pid, signal.SIGSTOP)
    site.redis.delete(NODES_KEY)

    outcome = site.controller.cancel_job(job_id)

    assert (outcome.status, outcome.waiting_for) == (JobStatus.RUNNING, f"node {worker.name} does not answer")
    os.kill(worker.pid, signal.SIGCONT)
    eventually(lambda: site.redis.hexists(NODES_KEY, worker.name), message="the node did not register again")


def _intent(job_id: str) -> CancelIntent:
    return CancelIntent(job_id=job_id, requested_at=now())
