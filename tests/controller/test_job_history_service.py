"""The service: the ledger merged with the workers' answers, and the actions that it passes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobledger.controller.job_history_service import JobHistoryService
from jobledger.controller.job_view import LiveSource
from jobledger.controller.live_view import LiveView
from jobledger.errors import JobActionNotAllowed, JobActionsDisabled, JobNotFound
from jobledger.history.event import EventKind
from jobledger.history.job import JobStatus
from jobledger.history.job_history_store import JobFilter


@pytest.fixture
def service(site: Any) -> Iterator[JobHistoryService]:
    live_view = LiveView(site.app)
    yield JobHistoryService(site.store, site.controller, live_view, wait=0.3)
    live_view.close()


def test_a_service_connects_itself_from_an_application_and_its_settings(site: Any) -> None:
    service = JobHistoryService.connect(site.app, site.settings)

    job_id = service.submit("jobs.add", [1, 2])

    assert service.get_job(job_id).status is JobStatus.QUEUED
    service.close()


def test_active_jobs_are_those_that_wait_and_run_and_recent_ones_all_newest_first(
    site: Any, service: JobHistoryService, tmp_path: Path
) -> None:
    site.start_worker()
    done = service.submit("jobs.add", [1, 2])
    site.wait_for_end(done)
    running = service.submit("jobs.wait_for", [str(tmp_path / "gate")])
    site.wait_for_status(running, JobStatus.RUNNING)
    waiting = service.submit("jobs.add", [3, 4])

    assert [view.job_id for view in service.list_active_jobs()] == [waiting, running]
    assert [view.job_id for view in service.list_recent_jobs()] == [waiting, running, done]
    assert [view.job_id for view in service.list_recent_jobs(limit=1)] == [waiting]
    assert [view.job_id for view in service.list_recent_jobs(status=JobStatus.RUNNING)] == [running]
    assert [view.job_id for view in service.list_recent_jobs(status=JobStatus.COMPLETED)] == [done]
    (tmp_path / "gate").touch()


def test_a_worker_is_believed_before_its_events_have_arrived(
    site: Any, service: JobHistoryService, eventually: Any, tmp_path: Path
) -> None:
    """The agent cannot write, so the ledger says QUEUED; the worker says that it runs the job."""
    import sqlite3

    worker = site.start_worker()
    job_id = service.submit("jobs.wait_for", [str(tmp_path / "gate")], queue="celery")
    site.wait_for_status(job_id, JobStatus.RUNNING)
    waiting = service.submit("jobs.wait_for", [str(tmp_path / "gate2")])
    ledger = sqlite3.connect(site.data_dir / "ledger.db", isolation_level=None)
    ledger.execute("BEGIN IMMEDIATE")
    (tmp_path / "gate").touch()

    view = eventually(lambda: (v := service.get_job(waiting)).status is JobStatus.RUNNING and v)

    assert site.status(waiting) is JobStatus.QUEUED
    assert (view.live_source, view.worker_id) == (LiveSource.WORKER, worker.name)
    assert waiting in [v.job_id for v in service.list_recent_jobs(status=JobStatus.RUNNING)]
    ledger.execute("ROLLBACK")
    ledger.close()
    (tmp_path / "gate2").touch()
    site.wait_for_end(waiting)


def test_a_job_of_a_silent_node_is_shown_as_last_known_and_never_guessed(
    site: Any, service: JobHistoryService, eventually: Any, tmp_path: Path
) -> None:
    import os
    import signal

    worker = site.start_worker()
    job_id = service.submit("jobs.wait_for", [str(tmp_path / "gate")])
    site.wait_for_status(job_id, JobStatus.RUNNING)
    eventually(lambda: service.get_job(job_id).live_source is LiveSource.WORKER)

    os.kill(worker.pid, signal.SIGSTOP)

    view = eventually(lambda: (v := service.get_job(job_id)).live_source is LiveSource.STALE and v, 30)
    assert view.status is JobStatus.RUNNING
    assert [node.state for node in service.workers()] == ["silent"]
    os.kill(worker.pid, signal.SIGCONT)
    (tmp_path / "gate").touch()
    site.wait_for_end(job_id)


def test_a_page_leads_to_the_next_and_a_filter_comes_after_the_merge(site: Any, service: JobHistoryService) -> None:
    ids = [service.submit("jobs.add", [1, number]) for number in range(5)]
    service.cancel_job(ids[0])

    first = service.list_jobs(limit=2)
    second = service.list_jobs(cursor=first.next_cursor, limit=2)
    last = service.list_jobs(cursor=second.next_cursor, limit=2)

    pages = [[view.job_id for view in page.jobs] for page in (first, second, last)]
    assert pages == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]
    assert last.next_cursor is None
    cancelled = service.list_jobs(JobFilter(statuses=(JobStatus.CANCELLED,)))
    assert [view.job_id for view in cancelled.jobs] == [ids[0]]
    with pytest.raises(ValueError, match="cursor"):
        service.list_jobs(cursor="no such page")


@pytest.mark.parametrize("job_id", ["", "garbage", "x" * 100_000, "' OR 1=1 --", "\x00", "../../etc/passwd"])
def test_an_id_that_nobody_gave_out_is_no_job(service: JobHistoryService, job_id: str) -> None:
    for question in (service.get_job, service.get_job_events, service.cancel_job, service.retry_job):
        with pytest.raises(JobNotFound):
            question(job_id)


def test_the_events_of_a_job_are_told_in_the_order_of_their_happening(site: Any, service: JobHistoryService) -> None:
    site.start_worker()
    job_id = service.submit("jobs.add", [1, 2])
    site.wait_for_end(job_id)

    kinds = [recorded.event.kind for recorded in service.get_job_events(job_id)]

    assert kinds == [EventKind.SUBMITTED, EventKind.HANDED_OVER, EventKind.STARTED, EventKind.ENDED]


def test_each_status_allows_its_actions_and_says_why_it_forbids_the_others(
    site: Any, service: JobHistoryService, tmp_path: Path
) -> None:
    site.start_worker()
    jobs = {
        JobStatus.COMPLETED: service.submit("jobs.add", [1, 2]),
        JobStatus.FAILED: service.submit("jobs.boom"),
        JobStatus.RUNNING: service.submit("jobs.wait_for", [str(tmp_path / "gate")]),
    }
    site.wait_for_status(jobs[JobStatus.RUNNING], JobStatus.RUNNING)
    jobs[JobStatus.CANCELLED] = service.submit("jobs.add", [1, 2])
    service.cancel_job(jobs[JobStatus.CANCELLED])
    jobs[JobStatus.QUEUED] = service.submit("jobs.add", [1, 2])

    views = {status: service.get_job(job_id) for status, job_id in jobs.items()}

    assert {status: view.status for status, view in views.items()} == {status: status for status in views}
    active = {JobStatus.QUEUED, JobStatus.RUNNING}
    assert {status for status, view in views.items() if view.can_cancel} == active
    assert {status for status, view in views.items() if view.can_retry} == set(views) - active
    for status, view in views.items():
        assert (view.cancel_refusal is None) == (status in active)
        assert (view.retry_refusal is None) == (status not in active)
    for status in (JobStatus.COMPLETED, JobStatus.FAILED):
        with pytest.raises(JobActionNotAllowed):
            service.cancel_job(jobs[status])
    for status in active:
        with pytest.raises(JobActionNotAllowed):
            service.retry_job(jobs[status])
    (tmp_path / "gate").touch()


def test_disabled_actions_are_shown_and_refused(site: Any, service: JobHistoryService) -> None:
    job_id = service.submit("jobs.add", [1, 2])
    site.controller.settings = site.settings.model_copy(update={"job_actions_enabled": False})

    view = service.get_job(job_id)

    assert not view.can_cancel
    assert "JOBLEDGER_JOB_ACTIONS_ENABLED" in (view.cancel_refusal or "")
    for action in (service.cancel_job, service.retry_job):
        with pytest.raises(JobActionsDisabled):
            action(job_id)


def test_queues_show_their_depth_by_level(site: Any, service: JobHistoryService, eventually: Any) -> None:
    for priority in ("high", "low", "low"):
        service.submit("jobs.add", [1, 2], priority=priority)

    [queue] = eventually(service.queues)

    assert (queue.name, queue.depth) == ("celery", 3)
    assert {level: count for level, count in queue.levels.items() if count} == {"high": 1, "low": 2}
