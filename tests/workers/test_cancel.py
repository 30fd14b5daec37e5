"""Cancel, seen from the job: it never starts, or it stops, or it finished first; never two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jobledger.errors import JobActionNotAllowed, JobActionsDisabled, JobNotFound
from jobledger.history.event import EventKind
from jobledger.history.job import Evidence, JobStatus
from jobledger.workers.tombstones import KEY


def test_a_queued_job_is_cancelled_at_once_without_any_worker(site: Any, tmp_path: Path, eventually: Any) -> None:
    truth = tmp_path / "truth"
    job_id = site.controller.submit("jobs.note", [str(truth), "ran"])

    outcome = site.controller.cancel_job(job_id, actor="ann", reason="typo")

    assert outcome.is_proven
    entry = site.store.get_job(job_id)
    assert (entry.status, entry.cancel_actor, entry.cancel_reason) == (JobStatus.CANCELLED, "ann", "typo")
    site.start_worker()
    site.wait_for_end(site.controller.submit("jobs.add", [1, 1]))
    assert not truth.exists()


def test_a_copy_of_a_cancelled_job_that_surfaces_later_is_denied(site: Any, tmp_path: Path, eventually: Any) -> None:
    truth = tmp_path / "truth"
    job_id = site.controller.submit("jobs.note", [str(truth), "ran"], priority=4)
    [key] = [key for key in site.redis.keys("celery*") if site.redis.type(key) == b"list"]
    copy = site.redis.lindex(key, 0)
    site.controller.cancel_job(job_id)
    site.start_worker()

    site.redis.lpush(key, copy)

    eventually(lambda: site.redis.llen(key) == 0)
    site.wait_for_end(site.controller.submit("jobs.add", [1, 1], priority=9))
    assert not truth.exists()
    assert site.status(job_id) is JobStatus.CANCELLED


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_denied_job_gives_its_slot_back(site: Any, eventually: Any, pool: str) -> None:
    jobs = [site.controller.submit("jobs.add", [1, number]) for number in range(20)]
    site.redis.zadd(KEY, dict.fromkeys(jobs, 1))

    site.start_worker(pool=pool, concurrency=2)

    eventually(lambda: all(site.status(job) is JobStatus.CANCELLED for job in jobs))
    after = [site.controller.submit("jobs.add", [1, number]) for number in range(5)]
    assert all(site.wait_for_end(job).status is JobStatus.COMPLETED for job in after)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_running_job_that_looks_at_its_token_stops_by_itself(site: Any, pool: str, eventually: Any) -> None:
    site.start_worker(pool=pool)
    job_id = site.controller.submit("jobs.polite", [3 if pool == "solo" else 60])
    site.wait_for_status(job_id, JobStatus.RUNNING)

    site.controller.cancel_job(job_id)

    end = site.wait_for_end(job_id).end
    if pool == "solo":
        # Its main loop is the job: no command reaches it before the job has ended.
        assert end.status is JobStatus.COMPLETED
    else:
        assert (end.status, end.evidence) == (JobStatus.CANCELLED, Evidence.OWN)
        assert EventKind.CANCEL_DELIVERED in site.kinds(job_id)


def test_a_job_that_ignores_its_token_is_killed_after_its_grace_and_the_slot_works_again(site: Any) -> None:
    site.start_worker()
    job_id = site.controller.submit("jobs.nap", [60], cancel_grace=0.3)
    site.wait_for_status(job_id, JobStatus.RUNNING)

    site.controller.cancel_job(job_id)

    end = site.wait_for_end(job_id, timeout=3).end
    assert (end.status, end.evidence) == (JobStatus.CANCELLED, Evidence.DEATH)
    assert end.detail == "told to stop, it did not within 0.3 s, so its process was killed (SIGKILL)"
    assert site.wait_for_end(site.controller.submit("jobs.add", [1, 1]), timeout=3).status is JobStatus.COMPLETED


def test_a_job_that_stops_by_itself_does_not_take_the_next_job_of_its_process_with_it(
    site: Any, eventually: Any
) -> None:
    """When the grace of the first is over, its process runs the second."""
    site.start_worker()
    polite = site.controller.submit("jobs.polite", [60], cancel_grace=1)
    site.wait_for_status(polite, JobStatus.RUNNING)
    following = [site.controller.submit("jobs.nap", [1.5]), site.controller.submit("jobs.add", [1, 1])]

    site.controller.cancel_job(polite)

    assert site.wait_for_end(polite).status is JobStatus.CANCELLED
    assert [site.wait_for_end(job).status for job in following] == [JobStatus.COMPLETED] * 2


def test_a_job_in_a_pool_of_threads_that_ignores_its_token_is_said_to_be_uninterruptible(
    site: Any, eventually: Any
) -> None:
    site.start_worker(pool="threads")
    job_id = site.controller.submit("jobs.nap", [2], cancel_grace=0)
    site.wait_for_status(job_id, JobStatus.RUNNING)

    site.controller.cancel_job(job_id)

    eventually(lambda: "cannot be interrupted" in (site.store.get_job(job_id).cancel_obstacle or ""))
    entry = site.wait_for_end(job_id)
    assert entry.status is JobStatus.COMPLETED
    assert entry.cancel_requested_at is not None


def test_a_job_between_its_hand_over_and_its_start_never_runs_in_a_pool_of_threads(
    site: Any, tmp_path: Path, eventually: Any
) -> None:
    """The executor's own queue is the pipe of this pool: with prefetch on, a job waits in it."""
    site.environment["JOBLEDGER_CANCEL_GRACE"] = "0"
    gate, truth = tmp_path / "gate", tmp_path / "truth"
    site.start_worker(pool="threads", JOBS_PREFETCH="4")
    holder = site.controller.submit("jobs.wait_for", [str(gate)])
    site.wait_for_status(holder, JobStatus.RUNNING)
    waiting = site.controller.submit("jobs.note", [str(truth), "ran"])
    eventually(lambda: EventKind.HANDED_OVER in site.kinds(waiting))

    outcome = site.controller.cancel_job(waiting)
    gate.touch()

    assert not outcome.is_proven
    assert site.wait_for_end(waiting).status is JobStatus.CANCELLED
    assert not truth.exists()


def test_a_job_that_finishes_first_is_completed_with_the_request_kept(site: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    site.start_worker()
    job_id = site.controller.submit("jobs.wait_for", [str(gate)])
    site.wait_for_status(job_id, JobStatus.RUNNING)

    site.controller.cancel_job(job_id)
    gate.touch()

    entry = site.wait_for_end(job_id)
    assert entry.status is JobStatus.COMPLETED
    assert entry.cancel_requested_at is not None


def test_a_second_cancel_changes_nothing_and_an_ended_job_cannot_be_cancelled(site: Any) -> None:
    job_id = site.controller.submit("jobs.add", [1, 1])
    site.controller.cancel_job(job_id, actor="ann")
    events = site.store.get_job_events(job_id)

    assert site.controller.cancel_job(job_id, actor="bob").status is JobStatus.CANCELLED

    assert site.store.get_job_events(job_id) == events
    site.start_worker()
    done = site.controller.submit("jobs.add", [1, 1])
    site.wait_for_end(done)
    with pytest.raises(JobActionNotAllowed) as refusal:
        site.controller.cancel_job(done)
    assert refusal.value.status == JobStatus.COMPLETED


@pytest.mark.parametrize("job_id", ["", "no such job", "x" * 10_000, "'; DROP TABLE jobs; --", "a\x00b", "\ud800"])
def test_an_id_that_nobody_gave_out_is_no_job(site: Any, job_id: str) -> None:
    with pytest.raises(JobNotFound):
        site.controller.cancel_job(job_id)
    with pytest.raises(JobNotFound):
        site.controller.retry_job(job_id)


def test_disabled_actions_are_refused_before_anything_changes(site: Any) -> None:
    site.environment["JOBLEDGER_JOB_ACTIONS_ENABLED"] = "false"
    job_id = site.controller.submit("jobs.add", [1, 1])
    events = site.store.get_job_events(job_id)

    with pytest.raises(JobActionsDisabled):
        site.controller.cancel_job(job_id)
    with pytest.raises(JobActionsDisabled):
        site.controller.retry_job(job_id)

    assert site.store.get_job_events(job_id) == events
    assert not site.store.has_cancel_intent(job_id)
