"""What the rest of Jobledger asks of a ledger."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

import msgspec

from .event import EventKind, JobEvent
from .failure_group_page import FailureGroupPage
from .job import FailureKind, JobEnd, JobFacts, JobHistoryEntry, JobStatus, Snapshot
from .job_cursor import JobCursor
from .job_search import words_of
from .node import Node, NodeEnd
from .poison import PoisonLine, PoisonPlace
from .recordable import RecordableEvent
from .redaction import redact_text
from .statistics import LedgerCounts, Statistics

#: The largest page of any list.
PAGE_LIMIT = 500
#: How long the ids of removed jobs stay known, so that what comes late about them is dropped.
PRUNED_REMEMBERED = timedelta(days=7)


class JournalOffset(msgspec.Struct, frozen=True, kw_only=True):
    """Which bytes of which journal a batch came from; recorded with it, so that no byte counts twice."""

    journal: str
    start: int
    end: int
    #: Events that the journal's writer could not write so far (a full disk), by its own count.
    dropped: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"A batch of {self.journal} cannot go from byte {self.start} to byte {self.end}.")


class LeaseHold(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that somebody took, by the number he got: it proves that nobody has taken it since."""

    name: str
    fence: int


class JobSubmission(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is about to be published."""

    job_id: str
    at: datetime
    facts: JobFacts
    snapshot: Snapshot | None = None


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs a list shows: those that all of the fields fit; an empty field does not filter.

    A ledger answers in about a millisecond, at any size and depth, for each of these with any times and statuses:
    nothing else, ``queue``, ``task``, ``worker_id``, one tag, one item of ``metadata``, ``group_id``,
    ``failure_group``; for ``root_id`` with whatever else; and for ``text`` with whatever else, as long as some part
    of it is rare. What comes on top of that is checked job by job, for a bounded number of them: the page may then
    be partial.

    Raises:
        ValueError: for a ``text`` that is too short to be looked for.
    """

    statuses: tuple[JobStatus, ...] = ()
    task: str | None = None
    queue: str | None = None
    #: The node that ended the job, else the one that runs it or ran it last.
    worker_id: str | None = None
    #: All of them.
    tags: tuple[str, ...] = ()
    #: All of them, each a key and its value.
    metadata: tuple[tuple[str, str], ...] = ()
    group_id: str | None = None
    #: The first job of a family of retries, which belongs to it.
    root_id: str | None = None
    #: The fingerprint of a group of failures.
    failure_group: str | None = None
    #: The first moment of submission, and the first one that is too late.
    since: datetime | None = None
    until: datetime | None = None
    #: Words that all occur in the summary, the task, the error, the tags or the values of the metadata, also inside
    #: of longer words, whatever their case.
    text: str | None = None

    def __post_init__(self) -> None:
        if self.text is not None:
            words_of(self.text)
        if any(moment is not None and moment.utcoffset() is None for moment in (self.since, self.until)):
            raise ValueError("The times of a filter need their offset from UTC.")


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Entries, newest first, and where to go on; ``next_cursor`` is ``None`` on the last page.

    A page may hold fewer entries than asked for, even none, and still not be the last: when no index covers
    the filter, a ledger looks at a bounded number of jobs and says where it stopped.
    """

    entries: tuple[JobHistoryEntry, ...]
    next_cursor: str | None = None


class RecordedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as the ledger keeps it: with its place in the order of recording, without its snapshot."""

    seq: int
    recorded_at: datetime
    event: JobEvent


class CancelIntent(msgspec.Struct, frozen=True, kw_only=True):
    """The row that says "this job must not go on"."""

    job_id: str
    requested_at: datetime
    actor: str | None = None
    reason: str | None = None


class RecordingGap(msgspec.Struct, frozen=True, kw_only=True):
    """What could not be recorded: events that a full disk swallowed, or lines that nobody can read."""

    journal: str
    dropped: int
    poisoned: int
    updated_at: datetime


@runtime_checkable
class JobHistoryStore(Protocol):
    """The ledger: append-only events, and the rows they fold into.

    Every method raises ``HistoryUnavailable`` when the ledger cannot answer. Methods may be called from any
    thread; a store is not carried over a fork.
    """

    def append(
        self,
        events: Sequence[JobEvent | RecordableEvent],
        journal_offset: JournalOffset | Sequence[JournalOffset] | None = None,
        lease: LeaseHold | None = None,
    ) -> bool:
        """Record events and fold them into their jobs' rows, in one transaction; the only write path for events.

        With ``journal_offset`` the batch counts only if the ledger holds that journal, or each of them, up to exactly
        ``start``, else nothing is written and the answer is False. With ``lease`` likewise while nobody has taken the
        lease since. A job's second submission changes nothing.

        Raises:
            EventRefused: for an event that breaks its own types; nothing is written.
        """
        ...

    def record_job_submission(self, job: JobSubmission) -> bool:
        """Record a new job with its snapshot; return False for an id that was submitted before."""
        ...

    def record_status_change(self, job_id: str, status: JobStatus, ts: datetime, error: str | None = None) -> None:
        """Record that a job's first attempt changed its status; for an unknown id too, to be filled in later."""
        ...

    def list_jobs(self, status: JobStatus | None = None, limit: int = 50, offset: int = 0) -> list[JobHistoryEntry]:
        """Return entries, newest first, ties by id; ``limit`` is clamped to 0..``PAGE_LIMIT``."""
        ...

    def page_jobs(self, job_filter: JobFilter, cursor: str | None = None, limit: int = 50) -> JobPage:
        """Return a page of the filtered jobs, newest first; a cursor stays valid when its job is gone.

        Raises:
            ValueError: for a cursor that no page gave out.
        """
        ...

    def index_for_search(self, limit: int = 500) -> int:
        """Make what was recorded lately known to searches by text; return how many jobs were taken up, 0 for none left.

        Recording leaves this to whoever has a quiet moment; any number of processes may do it, one does it at a time.
        """
        ...

    def get_job(self, job_id: str) -> JobHistoryEntry | None:
        """Return one entry, or ``None`` for an id that is not known."""
        ...

    def get_jobs(self, job_ids: Collection[str]) -> dict[str, JobHistoryEntry]:
        """Return the known ones among the ids."""
        ...

    def get_job_events(self, job_id: str) -> list[RecordedEvent]:
        """Return a job's events in the order of recording, log lines and progress left out."""
        ...

    def get_job_log(self, job_id: str, limit: int = 200) -> list[RecordedEvent]:
        """Return the newest lines of a job's log, oldest first."""
        ...

    def get_snapshot(self, job_id: str) -> Snapshot | None:
        """Return a job's sealed snapshot, if one was kept."""
        ...

    def request_cancel(self, intent: CancelIntent) -> JobHistoryEntry | None:
        """Commit the intent and its event if the job exists and has not ended; return its entry as it is then.

        The first intent stays; a second one changes nothing.
        """
        ...

    def open_cancels(self, limit: int = 1_000) -> list[CancelIntent]:
        """Return intents whose jobs have not ended, oldest first."""
        ...

    def cancelled_ids_since(self, moment: datetime) -> list[str]:
        """Return the ids of all intents since ``moment``: what the broker's deny set must hold."""
        ...

    def has_cancel_intent(self, job_id: str) -> bool:
        """Whether somebody asked for the job's end."""
        ...

    def journal_ends(self, journals: Collection[str]) -> dict[str, int]:
        """Return up to which byte each of the journals is recorded; unknown ones are missing."""
        ...

    def record_poison(self, journal: str, offset: int, line: bytes, reason: str) -> None:
        """Set a line aside that nobody can read, with its place and the reason."""
        ...

    def list_poison(self, after: PoisonPlace | None = None, limit: int = 100) -> list[PoisonLine]:
        """Return lines that were set aside, by their places, those behind ``after``."""
        ...

    def newest_poison(self, limit: int = 5) -> list[PoisonLine]:
        """Return the lines of the newest journals, last ones first."""
        ...

    def get_poison(self, place: PoisonPlace) -> PoisonLine | None:
        """Return one line that was set aside, or ``None``."""
        ...

    def release_poison(self, place: PoisonPlace, event: JobEvent | None, dropped: int = 0) -> bool:
        """Record what a line turned out to say and remove the line, in one transaction; False if it is not there.

        Raises:
            EventRefused: for an event that breaks its own types; nothing changes.
        """
        ...

    def blame_poison(self, place: PoisonPlace, reason: str) -> None:
        """Give a line that was set aside another reason."""
        ...

    def recording_gaps(self) -> list[RecordingGap]:
        """Return the journals with dropped or unreadable events."""
        ...

    def record_node(self, node: Node) -> None:
        """Record a node's boot; an earlier boot of the same id is replaced."""
        ...

    def record_heartbeats(self, boot_ids: Collection[str], at: datetime) -> None:
        """Count every named node's heartbeat up by one."""
        ...

    def end_node(self, boot_id: str, how: NodeEnd, at: datetime) -> None:
        """Record the end of a boot, after all of its journals were recorded; the first end stays."""
        ...

    def ended_boots(self, boot_ids: Collection[str]) -> set[str]:
        """Return which of the boots are known to have ended."""
        ...

    def list_nodes(self, include_ended: bool = False) -> list[Node]:
        """Return the nodes, newest boot first."""
        ...

    def list_jobs_of_ended_nodes(self, limit: int = 500) -> list[JobHistoryEntry]:
        """Return unfinished jobs whose latest run was on a boot that has ended."""
        ...

    def end_journal(self, journal: str) -> None:
        """Record that a journal's file is deleted, all of it recorded; retention removes its row later."""
        ...

    def list_ended_jobs(
        self, submitted_before: Mapping[JobStatus, datetime | None], after: JobCursor | None = None, limit: int = 50
    ) -> list[JobHistoryEntry]:
        """Return ended jobs of the statuses, oldest first by submission, each status up to its moment if it has one."""
        ...

    def jobs_with_active_retries(self, entries: Collection[JobHistoryEntry]) -> set[str]:
        """Return the ids of those of the jobs of which a retry waits or runs."""
        ...

    def get_events_of_jobs(self, job_ids: Collection[str]) -> dict[str, list[RecordedEvent]]:
        """Return the events of each job, like ``get_job_events``; a job without any is missing."""
        ...

    def remove_jobs(self, entries: Collection[JobHistoryEntry], lease: LeaseHold) -> set[str] | None:
        """Remove ended jobs with everything about them, in one transaction; return the ids of the removed ones.

        A job that is no longer as its entry says stays, and so does one of which a retry waits or runs. The ids stay
        known for ``PRUNED_REMEMBERED``: what comes in about them is dropped and counted. ``None``, and no change,
        when somebody has taken the lease since.
        """
        ...

    def remove_rest(self, before: datetime | None, lease: LeaseHold) -> int | None:
        """Remove some of what else is too old, in one transaction; return how many rows, 0 when nothing is left.

        That is the ids of removed jobs after their time; and statistics, ended journals and ended nodes of before
        ``before``, if it is given. ``None``, and no change, when somebody has taken the lease since.
        """
        ...

    def counts(self) -> LedgerCounts:
        """Return how many jobs there are by status, and what else was counted; never counts rows."""
        ...

    def statistics(
        self, since: datetime, until: datetime, task: str | None = None, queue: str | None = None
    ) -> Statistics:
        """Return what the jobs did between two moments, of one task or queue if it is given.

        The range grows to whole steps: of a minute for up to 3 hours of the last 2 days, of an hour for up to 8 days
        of the last 35, else of a day (UTC); at most 400 days.

        Raises:
            ValueError: when the range does not end after it begins.
        """
        ...

    def failure_groups(self, cursor: str | None = None, limit: int = 50) -> FailureGroupPage:
        """Return a page of the groups of failed jobs, the one that failed last first; of those that have jobs.

        Raises:
            ValueError: for a cursor that no page gave out.
        """
        ...

    def acquire_lease(self, name: str, holder: str, seconds: float) -> int | None:
        """Take or renew a lease; return its fencing number, or ``None`` while somebody else holds it.

        The number rises each time the holder changes.
        """
        ...

    def release_lease(self, name: str, holder: str) -> None:
        """Give a lease back, if the holder has it."""
        ...

    def lease_holder(self, name: str) -> str | None:
        """Return who holds a lease now; ``None`` when it is free, given back or has run out."""
        ...

    def lease_left(self, name: str) -> float | None:
        """Return for how many more seconds a lease is held, by the ledger's clock; ``None`` when it is free."""
        ...

    def check_writing(self) -> None:
        """Raise when the ledger cannot be written; changes nothing."""
        ...

    def check(self) -> None:
        """Ask the ledger the cheapest question there is; raises when it does not answer."""
        ...

    def close(self) -> None:
        """Give the connections back."""
        ...


def listed_offsets(journal_offset: JournalOffset | Sequence[JournalOffset] | None) -> Sequence[JournalOffset]:
    """Return the offsets that ``JobHistoryStore.append`` was given."""
    if journal_offset is None:
        return ()
    return (journal_offset,) if isinstance(journal_offset, JournalOffset) else journal_offset


def clamped(limit: int) -> int:
    """Return the page size that a list gives for ``limit``."""
    return max(0, min(limit, PAGE_LIMIT))


def submission_event(job: JobSubmission) -> JobEvent:
    """Return the event that records a submission."""
    return JobEvent(
        kind=EventKind.SUBMITTED,
        job_id=job.job_id,
        at=job.at,
        source="submit",
        facts=job.facts,
        snapshot=job.snapshot,
    )


def status_change_event(job_id: str, status: JobStatus, ts: datetime, error: str | None) -> JobEvent:
    """Return the event that records a plain change of status of a job's first attempt."""
    kind = {JobStatus.QUEUED: EventKind.PUBLISHED, JobStatus.RUNNING: EventKind.STARTED}.get(status, EventKind.ENDED)
    end = None
    if status.is_terminal:
        failure_kind = FailureKind.EXCEPTION if status is JobStatus.FAILED else None
        shown = None if error is None else redact_text(error)
        end = JobEnd(status=status, at=ts, error_message=shown, failure_kind=failure_kind)
    return JobEvent(kind=kind, job_id=job_id, at=ts, source="record_status_change", end=end)


def request_cancel_event(intent: CancelIntent) -> JobEvent:
    """Return the event that records a cancel intent."""
    return JobEvent(
        kind=EventKind.CANCEL_REQUESTED,
        job_id=intent.job_id,
        at=intent.requested_at,
        source="cancel_job",
        actor=intent.actor,
        reason=intent.reason,
    )
