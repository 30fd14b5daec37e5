"""A job's row: every field of an entry has its own column, and comes back from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jobledger.history.job import Evidence, FailureKind, JobEnd, JobFacts, JobHistoryEntry, JobStatus, Progress
from jobledger.history.job_row import row_of
from jobledger.history.sql_rows import entries_of

_DAWN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

_FACTS = JobFacts(
    task="task",
    queue="queue",
    priority=3,
    payload_summary="summary",
    tags=("a", "b"),
    metadata=(("customer", "7"),),
    group_id="group",
    retry_of="retry of",
    root_id="root",
    overrides="overrides",
    cancel_grace=1.5,
    snapshot_problem="problem",
)
_END = JobEnd(
    status=JobStatus.FAILED,
    at=_DAWN + timedelta(seconds=1),
    requeue=1,
    retries=2,
    evidence=Evidence.DEATH,
    run_id="end's run",
    worker_id="end's worker",
    detail="detail",
    failure_kind=FailureKind.WORKER_LOST,
    error_type="type",
    error_message="message",
    traceback="traceback",
    result_ref="result",
    runtime=2.5,
    provisional=True,
)
_FULL = JobHistoryEntry(
    job_id="job",
    created_at=_DAWN,
    facts=_FACTS,
    facts_rank=2,
    requeue=1,
    retries=2,
    handed_over=True,
    started_at=_DAWN + timedelta(seconds=2),
    attempt_started=True,
    run_id="run",
    run_worker_id="worker",
    run_boot_id="boot",
    next_attempt_at=_DAWN + timedelta(seconds=3),
    end=_END,
    retry_error="retry error",
    retry_error_key=(4, 5, "retry error"),
    published=True,
    uncertain=True,
    cancel_requested_at=_DAWN + timedelta(seconds=4),
    cancel_actor="actor",
    cancel_reason="reason",
    cancel_delivered_at=_DAWN + timedelta(seconds=5),
    cancel_obstacle="obstacle",
    progress=Progress(done=1.0, total=2.0, text="text"),
    progress_at=_DAWN + timedelta(seconds=6),
)


def test_an_entry_with_every_field_comes_back_from_its_row() -> None:
    assert entries_of([row_of(_FULL)]) == [_FULL]


def test_an_entry_of_which_little_is_known_comes_back_from_its_row() -> None:
    blank = JobHistoryEntry(job_id="job", created_at=_DAWN)
    assert entries_of([row_of(blank)]) == [blank]
