"""A job as the ledger knows it: its status, its facts, its end, and the entry that the events fold into."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Annotated

import msgspec

#: The length of a payload summary, in characters: a line for people, not the payload.
SUMMARY_LENGTH = 120

# What the ledger can hold, checked when an event is read: a line outside of it is set aside and blocks no other.
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
# (``recordable`` refuses an id with a NUL: a pattern here would take as long as all the rest of the reading.)
JobId = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Name = Annotated[str, msgspec.Meta(max_length=255)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class JobStatus(StrEnum):
    """Where a job stands. Finer facts are fields of the entry, never more statuses."""

    #: Known, and not running: in the queue, waiting for a retry, or on its way to a node.
    QUEUED = "QUEUED"
    #: A worker said that its function runs.
    RUNNING = "RUNNING"
    #: Its function returned.
    COMPLETED = "COMPLETED"
    #: It ended by an error, by its death, or by a verdict that nobody owns it.
    FAILED = "FAILED"
    #: It was cancelled and has provably stopped, or provably never starts.
    CANCELLED = "CANCELLED"

    # It is the key of many a count, and an enum's own hash is slow.
    __hash__ = str.__hash__

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self in TERMINAL_STATUSES


ACTIVE_STATUSES = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})
TERMINAL_STATUSES = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


class FailureKind(StrEnum):
    """Why a job is FAILED; a stable code for people, scripts and alarms."""

    #: Its function raised.
    EXCEPTION = "exception"
    #: It ran longer than its hard time limit.
    TIME_LIMIT = "time_limit"
    #: The process that ran it is gone.
    WORKER_LOST = "worker_lost"
    #: It could not be handed to the broker.
    DISPATCH = "dispatch"
    #: It was not started before the time that its sender set.
    EXPIRED = "expired"
    #: The worker refused the message, for instance because it has no such task.
    REJECTED = "rejected"
    #: The worker failed around the function, for instance while storing the result.
    INTERNAL = "internal"


class Evidence(IntEnum):
    """How strongly an end is known; inside one attempt the stronger one decides."""

    #: Concluded or arranged from outside: a removal from the queue, a denial, a verdict of recovery.
    VERDICT = 0
    #: The process that ran the job is known to be dead.
    DEATH = 1
    #: The job's own function ended, and said how.
    OWN = 2


# The structs below are none of the garbage collector's business: they are in no cycle, and an agent makes very many.
class JobFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is known about a job from its submission on, and never changes."""

    task: Name
    queue: Name | None = None
    #: The number on the wire, 0-9; on Redis 0 is served first.
    priority: Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)] | None = None
    #: At most ``SUMMARY_LENGTH`` characters for people, redacted.
    payload_summary: str = ""
    tags: tuple[str, ...] = ()
    #: What the submitter says about the job, sorted by key.
    metadata: tuple[tuple[str, str], ...] = ()
    group_id: str | None = None
    #: The job that this one repeats, and the first one of that family.
    retry_of: str | None = None
    root_id: str | None = None
    #: What a retry changed, as redacted JSON text.
    overrides: str | None = None
    #: Seconds between the cancel of this job and the kill; unset: the node's setting.
    cancel_grace: float | None = None
    #: Why no retry is possible ("too large", "no key"); unset: a usable snapshot exists.
    snapshot_problem: str | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A job's exact message body and options, encrypted; see ``history.snapshot``."""

    #: The Fernet token.
    sealed: str
    #: SHA-256 of the JSON of what was sealed, its keys sorted: equal for a job and its unchanged retry.
    digest: str
    #: Bytes before sealing.
    size: int
    #: Names the key without telling it.
    key_fingerprint: str


class JobEnd(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One end of a job that somebody recorded; the greatest ``key`` of a job's ends is its effective one."""

    status: JobStatus
    at: Moment
    requeue: Count = 0
    retries: Count = 0
    evidence: Evidence = Evidence.OWN
    run_id: str | None = None
    worker_id: str | None = None
    #: What shows that the job ended this way, for people: "removed from the queue", "process 4711 killed".
    detail: str | None = None
    failure_kind: FailureKind | None = None
    error_type: str | None = None
    error_message: str | None = None
    traceback: str | None = None
    #: JSON text of a few KB at most: paths, counts, ids; never the product itself.
    result_ref: str | None = None
    #: Seconds that the function ran.
    runtime: float | None = None
    #: True while the journals of a lost host could not be read: a late real end is likely to correct it.
    provisional: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """The written precedence of ends, whenever they arrive; every field takes part, so no tie is left."""
        return (
            self.status is JobStatus.COMPLETED,
            self.requeue,
            self.retries,
            self.evidence,
            self.status is JobStatus.FAILED,
            self.run_id or "",
            -self.at.timestamp(),
            msgspec.json.encode(self),
        )


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How far a running job says it is."""

    done: float
    total: float | None = None
    text: str = ""


class JobHistoryEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One job's row: everything its events say, folded by ``history.fold.fold``.

    All times are aware and in UTC.
    """

    job_id: str
    #: The earliest moment anybody saw the job.
    created_at: datetime
    facts: JobFacts | None = None
    #: Which kind of event the facts came from; facts of a higher rank replace those of a lower one.
    facts_rank: int = -1
    #: The highest attempt seen so far.
    requeue: int = 0
    retries: int = 0
    #: Whether any attempt was ever handed to a pool.
    handed_over: bool = False
    #: When the function of any attempt first started.
    started_at: datetime | None = None
    #: Whether the highest attempt has started, and its latest run.
    attempt_started: bool = False
    run_id: str | None = None
    run_worker_id: str | None = None
    run_boot_id: str | None = None
    #: When the highest attempt becomes due, for one that Celery retries.
    next_attempt_at: datetime | None = None
    #: The strongest end recorded so far; it may belong to an attempt that a later one has overtaken.
    end: JobEnd | None = None
    #: The latest error that led to a Celery retry.
    retry_error: str | None = None
    retry_error_key: tuple[int, int, str] | None = None
    published: bool = False
    uncertain: bool = False
    cancel_requested_at: datetime | None = None
    cancel_actor: str | None = None
    cancel_reason: str | None = None
    #: When a node told the running job to stop.
    cancel_delivered_at: datetime | None = None
    #: Why a delivered cancel cannot be enforced, for instance in a pool of threads.
    cancel_obstacle: str | None = None
    progress: Progress | None = None
    progress_at: datetime | None = None

    @property
    def effective_end(self) -> JobEnd | None:
        """The end that counts, if the job has ended: a completion, else an end of the highest attempt."""
        end = self.end
        if end is None:
            return None
        if end.status is JobStatus.COMPLETED or (end.requeue, end.retries) == (self.requeue, self.retries):
            return end
        return None

    @property
    def status(self) -> JobStatus:
        """Where the job stands, derived from what was recorded."""
        end = self.effective_end
        if end is not None:
            return end.status
        return JobStatus.RUNNING if self.attempt_started else JobStatus.QUEUED

    @property
    def attempt(self) -> int:
        """The number of the latest attempt, from 1, over Celery's retries and Jobledger's requeues."""
        return 1 + self.requeue + self.retries

    @property
    def completed_at(self) -> datetime | None:
        """When the job ended, whichever way."""
        end = self.effective_end
        return end.at if end else None

    @property
    def worker_id(self) -> str | None:
        """The node that ended the job, else the one that runs it or ran it last."""
        end = self.effective_end
        if end is not None and (end.worker_id or end.status is JobStatus.COMPLETED):
            return end.worker_id
        return self.run_worker_id

    @property
    def last_error(self) -> str | None:
        """The error of the job's end, else of the attempt that led to the latest Celery retry."""
        end = self.effective_end
        if end is None:
            return self.retry_error
        return end.error_message

    @property
    def dispatch_uncertain(self) -> bool:
        """Whether the broker's answer to the publishing was lost and nobody has seen the message since."""
        return self.uncertain and not (self.published or self.handed_over or self.attempt_started)

    @property
    def payload_summary(self) -> str:
        """A line about the payload, for people."""
        return self.facts.payload_summary if self.facts else ""

    @property
    def task(self) -> str | None:
        """The task's name; ``None`` until somebody recorded it."""
        return self.facts.task if self.facts else None
