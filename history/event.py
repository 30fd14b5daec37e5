"""One recorded change of a job."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from .job import Count, JobEnd, JobFacts, JobId, Moment, Name, Progress, Snapshot


class EventKind(StrEnum):
    """What happened."""

    #: The controller wrote the job, before it published the message.
    SUBMITTED = "submitted"
    #: A process is about to publish the message.
    PUBLISHING = "publishing"
    #: The broker took the message.
    PUBLISHED = "published"
    #: The broker's answer was lost: the message may or may not be queued.
    DISPATCH_UNCERTAIN = "dispatch_uncertain"
    #: A node took a message that nobody had recorded before.
    RECEIVED = "received"
    #: A node gave a run of the job to its pool; from here on it can no longer be dropped.
    HANDED_OVER = "handed_over"
    #: The job's function starts.
    STARTED = "started"
    #: The attempt ended by an error, and Celery will start another one.
    RETRYING = "retrying"
    #: Recovery published the job again.
    REQUEUED = "requeued"
    #: The job, or this attempt of it, ended; ``end`` says how.
    ENDED = "ended"
    #: Somebody asked for the job's end.
    CANCEL_REQUESTED = "cancel_requested"
    #: A node told the running job to stop.
    CANCEL_DELIVERED = "cancel_delivered"
    #: A node dropped a second delivery of a run that it knows.
    DUPLICATE_DROPPED = "duplicate_dropped"
    #: The job said how far it is; only the newest is kept.
    PROGRESS = "progress"
    #: The job wrote a line to its log.
    LOG = "log"


class JobEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One change of one job, as its observer saw it.

    ``requeue`` and ``retries`` name the attempt; ``run_id`` names one hand-over to a pool inside it.
    """

    kind: EventKind
    job_id: JobId
    #: When it happened, by the clock of the observer; in UTC.
    at: Moment
    #: What observed it, for instance the name of the Celery signal.
    source: str = ""
    requeue: Count = 0
    retries: Count = 0
    run_id: str | None = None
    #: The node, its boot and the process that observed it.
    worker_id: str | None = None
    boot_id: Name | None = None
    pid: int | None = None
    facts: JobFacts | None = None
    snapshot: Snapshot | None = None
    end: JobEnd | None = None
    next_attempt_at: Moment | None = None
    actor: str | None = None
    reason: str | None = None
    progress: Progress | None = None
    #: A log line, the error behind a retry, or the obstacle to a cancel.
    text: str | None = None
    #: The level of a log line, for instance "WARNING".
    level: Name | None = None


def now() -> datetime:
    """Return the current time, aware and in UTC."""
    return datetime.now(UTC)
