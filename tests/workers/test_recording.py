"""What a real worker's jobs leave in the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jobledger.history.event import EventKind
from jobledger.history.job import Evidence, FailureKind, JobStatus

PLAIN_JOB = [EventKind.SUBMITTED, EventKind.HANDED_OVER, EventKind.STARTED, EventKind.ENDED]
POOLS = pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])


@POOLS
def test_a_job_is_recorded_from_its_submission_to_its_end(site: Any, pool: str) -> None:
    worker = site.start_worker(pool=pool)

    job_id = site.controller.submit("jobs.add", [2, 3], priority="high", tags=["sums"])

    entry = site.wait_for_end(job_id)
    assert entry.status is JobStatus.COMPLETED
    assert entry.end.result_ref == "5"
    assert entry.worker_id == worker.name
    assert entry.payload_summary == "2, 3"
    assert entry.facts.tags == ("sums",)
    assert entry.created_at <= entry.started_at <= entry.completed_at
    assert site.kinds(job_id) == PLAIN_JOB


def test_a_submitted_job_can_be_read_back_at_once(site: Any) -> None:
    job_id = site.controller.submit("jobs.add", [2, 3])

    entry = site.store.get_job(job_id)

    assert entry.status is JobStatus.QUEUED
    assert entry.task == "jobs.add"


def test_a_plain_delay_is_recorded_with_its_arguments(site: Any, eventually: Any) -> None:
    site.start_worker()

    job_id = site.run_python("import jobs; print(jobs.app.tasks['jobs.add'].delay(20, y=22).id)").strip()

    entry = site.wait_for_end(job_id)
    assert entry.end.result_ref == "42"
    assert entry.payload_summary == "20, y=22"
    eventually(lambda: EventKind.PUBLISHED in site.kinds(job_id))
    assert site.kinds(job_id)[0] is EventKind.PUBLISHING
    assert EventKind.RECEIVED not in site.kinds(job_id)
    retried = site.controller.retry_job(job_id)
    assert site.wait_for_end(retried).end.result_ref == "42"


def test_a_job_of_a_publisher_without_jobledger_is_recorded_on_receipt(site: Any, eventually: Any) -> None:
    site.start_worker()

    job_id = site.run_python(
        "from celery import Celery, uuid\n"
        f"app = Celery(broker={site.redis_url!r})\n"
        "print(app.send_task('jobs.add', [1, 2], priority=3).id)"
    ).strip()

    assert site.wait_for_end(job_id).status is JobStatus.COMPLETED
    eventually(lambda: EventKind.RECEIVED in site.kinds(job_id))
    assert site.store.get_job(job_id).facts.priority == 3
    assert site.wait_for_end(site.controller.retry_job(job_id)).end.result_ref == "3"


@POOLS
def test_an_error_is_recorded_with_its_text_and_without_its_secrets(site: Any, pool: str) -> None:
    site.start_worker(pool=pool)

    job_id = site.controller.submit("jobs.boom", ["no route, password=hunter2"])

    end = site.wait_for_end(job_id).end
    assert end.status is JobStatus.FAILED
    assert end.failure_kind is FailureKind.EXCEPTION
    assert end.error_type == "ValueError"
    assert end.error_message.startswith("ValueError: no route, password=")
    assert "hunter2" not in end.error_message + end.traceback
    assert "in boom" in end.traceback


def test_a_job_that_leaves_the_process_fails_and_the_worker_goes_on(site: Any) -> None:
    site.start_worker()

    left = site.controller.submit("jobs.leave", [3])
    after = site.controller.submit("jobs.add", [1, 1])

    assert site.wait_for_end(left).end.failure_kind is FailureKind.WORKER_LOST
    assert site.wait_for_end(after).status is JobStatus.COMPLETED


def test_a_job_whose_process_is_killed_fails_by_the_evidence_of_its_death(site: Any) -> None:
    site.start_worker()

    job_id = site.controller.submit("jobs.die")

    end = site.wait_for_end(job_id).end
    assert end.failure_kind is FailureKind.WORKER_LOST
    assert end.evidence is Evidence.DEATH


def test_a_job_over_its_hard_time_limit_fails_for_that(site: Any) -> None:
    site.start_worker()

    job_id = site.controller.submit("jobs.nap", [30], time_limit=1)

    assert site.wait_for_end(job_id).end.failure_kind is FailureKind.TIME_LIMIT


def test_a_result_that_is_not_json_does_not_fail_a_job_without_a_result_backend(site: Any) -> None:
    site.start_worker()

    end = site.wait_for_end(site.controller.submit("jobs.foreign_result")).end

    assert end.status is JobStatus.COMPLETED
    assert end.result_ref == '{"type":"set"}'


def test_a_result_that_the_backend_cannot_store_fails_the_job_as_celery_says(site: Any) -> None:
    site.start_worker(JOBS_RESULT_BACKEND=site.redis_url)

    end = site.wait_for_end(site.controller.submit("jobs.foreign_result")).end

    assert end.status is JobStatus.FAILED
    assert "EncodeError" in end.error_type


def test_celerys_own_retries_are_attempts_of_one_job(site: Any, tmp_path: Path) -> None:
    site.start_worker()

    job_id = site.controller.submit("jobs.flaky", [str(tmp_path / "runs"), 2])

    entry = site.wait_for_status(job_id, JobStatus.COMPLETED)
    assert entry.attempt == 3
    assert entry.end.result_ref == "3"
    assert site.kinds(job_id).count(EventKind.RETRYING) == 2
    assert site.kinds(job_id).count(EventKind.STARTED) == 3


def test_a_jobs_log_and_last_progress_are_kept(site: Any) -> None:
    site.start_worker()

    job_id = site.controller.submit("jobs.chatter", [20])

    entry = site.wait_for_end(job_id)
    assert (entry.progress.done, entry.progress.total, entry.progress.text) == (20, 20, "step 20")
    assert [line.event.text for line in site.store.get_job_log(job_id)] == [f"line {n}" for n in range(20)]


def test_a_task_that_no_worker_knows_fails_with_that_reason(site: Any) -> None:
    site.start_worker()

    job_id = site.run_python(
        f"from celery import Celery; print(Celery(broker={site.redis_url!r}).send_task('jobs.unheard_of').id)"
    ).strip()

    end = site.wait_for_end(job_id).end
    assert end.failure_kind is FailureKind.REJECTED
    assert "jobs.unheard_of" in end.error_message


def test_a_worker_says_goodbye_after_its_last_job(site: Any, eventually: Any) -> None:
    worker = site.start_worker()
    job_id = site.controller.submit("jobs.nap", [1])
    site.wait_for_status(job_id, JobStatus.RUNNING)

    assert worker.stop() == 0

    assert site.status(job_id) is JobStatus.COMPLETED
    node = eventually(lambda: [node for node in site.store.list_nodes(include_ended=True) if node.ended_at])[0]
    assert node.ended_how == "stopped"
    assert site.redis.hgetall("jobledger:nodes") == {}


def test_an_application_may_use_an_id_of_its_own_again(site: Any, tmp_path: Path, eventually: Any) -> None:
    site.start_worker()
    truth = tmp_path / "truth"
    call = f"import jobs; jobs.app.tasks['jobs.note'].apply_async(({str(truth)!r}, 'ran'), task_id='nightly')"

    for night in (1, 2):
        site.run_python(call)
        eventually(lambda night=night: truth.exists() and len(truth.read_text().split()) == night)

    assert site.wait_for_end("nightly").status is JobStatus.COMPLETED
