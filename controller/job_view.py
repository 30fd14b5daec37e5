"""A job as the faces show it: what the ledger remembers, merged with what the workers say now."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from ..history.job import FailureKind, JobStatus, Progress


class LiveSource(StrEnum):
    """Where the newest fact about a job came from."""

    #: A node that answers said so just now.
    WORKER = "worker"
    #: Only the ledger speaks of it; no node was asked, or none has anything to add.
    HISTORY = "history"
    #: The node that should know is silent; what is shown is the last that was known.
    STALE = "stale"
    #: A worker has it, and the ledger does not know it.
    FOREIGN = "foreign"


class JobViewModel(msgspec.Struct, frozen=True, kw_only=True):
    """One job for a list or a page; can be written as JSON and read back. All times are aware and in UTC."""

    job_id: str
    status: JobStatus
    #: Unknown for a foreign job.
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    task: str | None = None
    #: A redacted line for people.
    payload_summary: str = ""
    is_active: bool
    last_error: str | None = None
    failure_kind: FailureKind | None = None
    #: The node that has it, or had it last.
    worker_id: str | None = None
    #: The number on the wire, and what people call it.
    priority: int | None = None
    priority_name: str = "none"
    queue: str | None = None
    #: From 1, over Celery's retries and Jobledger's requeues.
    attempt: int = 1
    next_attempt_at: datetime | None = None
    progress: Progress | None = None
    can_cancel: bool = False
    #: Why a cancel would be refused; unset when it would not.
    cancel_refusal: str | None = None
    can_retry: bool = False
    #: Why a retry would be refused; unset when it would not.
    retry_refusal: str | None = None
    cancel_requested_at: datetime | None = None
    #: Who asked for its end, and why.
    cancel_actor: str | None = None
    cancel_reason: str | None = None
    #: What a requested cancel waits for, or how it went.
    cancel_state: str | None = None
    retry_of: str | None = None
    root_id: str | None = None
    tags: tuple[str, ...] = ()
    group_id: str | None = None
    metadata: dict[str, str] = {}
    #: JSON text: paths, counts, ids.
    result_ref: str | None = None
    #: Seconds that the function ran.
    runtime: float | None = None
    #: Whether the broker may or may not hold the message.
    dispatch_uncertain: bool = False
    #: What shows that the job ended as it did.
    end_detail: str | None = None
    live_source: LiveSource = LiveSource.HISTORY
    #: Seconds since the question that was answered last about this job; unset when no node's answer counts.
    live_age: float | None = None
    #: What the workers say that does not fit the ledger, or why nothing is known.
    live_note: str | None = None
