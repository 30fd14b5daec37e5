"""The view of a job from its ledger entry alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from jobledger.controller.entry_view import ACTIONS_DISABLED, view_of
from jobledger.controller.job_view import LiveSource
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.fold import fold
from jobledger.history.job import FailureKind, JobEnd, JobFacts, JobHistoryEntry, JobStatus, Progress

JOB = "0190-job"
AT = datetime(2030, 1, 1, 12, tzinfo=UTC)
ACTIVE = [JobStatus.QUEUED, JobStatus.RUNNING]
ENDED = [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED]


def event(kind: EventKind, **fields: object) -> JobEvent:
    return JobEvent(kind=kind, job_id=JOB, at=AT, **fields)  # type: ignore[arg-type]


FACTS = JobFacts(task="pictures.enhance")


def entry_of(status: JobStatus, *more: JobEvent, facts: JobFacts | None = FACTS) -> JobHistoryEntry:
    events = [event(EventKind.SUBMITTED, facts=facts)]
    if status is JobStatus.RUNNING:
        events.append(event(EventKind.STARTED, worker_id="celery@a", run_id="run-1"))
    if status.is_terminal:
        events.append(event(EventKind.ENDED, end=JobEnd(status=status, at=AT)))
    entry: JobHistoryEntry | None = None
    for each in (*events, *more):
        entry = fold(entry, each)
    assert entry is not None
    return entry


@pytest.mark.parametrize("status", JobStatus)
def test_only_what_has_not_ended_can_be_cancelled(status: JobStatus) -> None:
    view = view_of(entry_of(status), actions_enabled=True)
    assert view.can_cancel == view.is_active == (status in ACTIVE)
    assert view.cancel_refusal == (None if status in ACTIVE else f"it is {status} already")


@pytest.mark.parametrize("status", JobStatus)
def test_only_what_has_ended_can_be_retried(status: JobStatus) -> None:
    view = view_of(entry_of(status), actions_enabled=True)
    assert view.can_retry == (status in ENDED)
    assert view.retry_refusal == (None if status in ENDED else "it has not ended yet")


@pytest.mark.parametrize("status", ENDED)
def test_a_job_without_a_usable_snapshot_says_why_it_cannot_be_retried(status: JobStatus) -> None:
    without_key = view_of(entry_of(status, facts=JobFacts(task="t", snapshot_problem="no key")), actions_enabled=True)
    assert (without_key.can_retry, without_key.retry_refusal) == (False, "no key")
    without_facts = view_of(entry_of(status, facts=None), actions_enabled=True)
    assert (without_facts.can_retry, without_facts.retry_refusal) == (False, "nobody recorded its arguments")


@pytest.mark.parametrize("status", JobStatus)
def test_disabled_actions_refuse_both_with_a_reason(status: JobStatus) -> None:
    view = view_of(entry_of(status), actions_enabled=False)
    assert not view.can_cancel
    assert not view.can_retry
    assert ACTIONS_DISABLED in (view.cancel_refusal, view.retry_refusal)
    assert view.cancel_refusal
    assert view.retry_refusal


REQUESTED = event(EventKind.CANCEL_REQUESTED)
TOLD = event(EventKind.CANCEL_DELIVERED)
OBSTACLE = event(EventKind.CANCEL_DELIVERED, text="this pool cannot be interrupted")


@pytest.mark.parametrize(
    ("status", "events", "state"),
    [
        (JobStatus.RUNNING, [], None),
        (JobStatus.QUEUED, [REQUESTED], "cancelling: waiting for the proof that it never starts"),
        (JobStatus.RUNNING, [REQUESTED], "cancelling: waiting for node celery@a"),
        (JobStatus.RUNNING, [REQUESTED, TOLD], "cancelling: told to stop"),
        (JobStatus.RUNNING, [REQUESTED, OBSTACLE], "cancelling: this pool cannot be interrupted"),
        (JobStatus.CANCELLED, [REQUESTED, TOLD], "cancelled"),
        (JobStatus.COMPLETED, [REQUESTED, TOLD], "the cancel came too late: it is COMPLETED"),
        (JobStatus.FAILED, [REQUESTED], "the cancel came too late: it is FAILED"),
    ],
)
def test_a_cancel_says_what_it_waits_for(status: JobStatus, events: list[JobEvent], state: str | None) -> None:
    view = view_of(entry_of(status, *events), actions_enabled=True)
    assert view.cancel_state == state
    assert view.cancel_requested_at == (AT if events else None)


def test_everything_that_was_recorded_is_in_the_view() -> None:
    facts = JobFacts(
        task="pictures.enhance",
        queue="pictures",
        priority=2,
        payload_summary="cat.png",
        tags=("night",),
        group_id="group",
        retry_of="older",
        root_id="oldest",
    )
    end = JobEnd(
        status=JobStatus.FAILED,
        at=AT,
        worker_id="celery@a",
        detail="process 4711 killed",
        failure_kind=FailureKind.WORKER_LOST,
        error_message="it died",
        result_ref="{}",
        runtime=1.5,
    )
    progress = Progress(done=1, total=3, text="one of three")
    view = view_of(
        entry_of(
            JobStatus.RUNNING,
            event(EventKind.PROGRESS, progress=progress),
            event(EventKind.ENDED, end=end),
            facts=facts,
        ),
        actions_enabled=True,
    )
    assert (view.task, view.queue, view.priority, view.priority_name) == ("pictures.enhance", "pictures", 2, "high")
    assert (view.payload_summary, view.tags, view.group_id) == ("cat.png", ("night",), "group")
    assert (view.retry_of, view.root_id, view.attempt) == ("older", "oldest", 1)
    assert (view.created_at, view.started_at, view.completed_at) == (AT, AT, AT)
    assert (view.worker_id, view.end_detail, view.failure_kind) == ("celery@a", "process 4711 killed", "worker_lost")
    assert (view.last_error, view.result_ref, view.runtime, view.progress) == ("it died", "{}", 1.5, progress)
    assert (view.live_source, view.live_age, view.live_note) == (LiveSource.HISTORY, None, None)


def test_an_uncertain_dispatch_is_shown() -> None:
    assert view_of(entry_of(JobStatus.QUEUED, event(EventKind.DISPATCH_UNCERTAIN))).dispatch_uncertain


def test_a_job_of_which_nobody_recorded_the_facts_is_shown_without_them() -> None:
    view = view_of(entry_of(JobStatus.RUNNING, facts=None))
    assert (view.task, view.queue, view.priority, view.priority_name) == (None, None, None, "none")
