"""The ledger in SQL: an SQLite file, or a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

import msgspec
from sqlalchemy import Row, Select, select

from . import sql_cancels, sql_documents, sql_journals, sql_lists, sql_nodes, sql_retention
from .event import JobEvent
from .failure_group_page import FailureGroupPage
from .job import JobHistoryEntry, JobStatus, Snapshot
from .job_cursor import JobCursor, decode_cursor
from .job_history_store import (
    CancelIntent,
    JobFilter,
    JobPage,
    JobSubmission,
    JournalOffset,
    LeaseHold,
    RecordedEvent,
    RecordingGap,
    clamped,
    listed_offsets,
    status_change_event,
    submission_event,
)
from .job_row import entry_of
from .node import Node, NodeEnd
from .poison import PoisonLine, PoisonPlace
from .recordable import RecordableEvent, is_job_id, recordable, recordables
from .schema import job_events, job_log, job_snapshots, jobs
from .schema_version import open_schema
from .sql_database import SqlDatabase
from .sql_failure_groups import page_failure_groups
from .sql_recording import record_events
from .sql_statements import select_listed
from .sql_statistics import statistics_in
from .sql_totals import read_counts
from .statistics import LedgerCounts, Statistics, range_between

_EVENT = msgspec.json.Decoder(JobEvent)


class SqlJobHistoryStore:
    """A ``JobHistoryStore`` over SQLAlchemy; owns its connections; several threads and processes may write."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    @classmethod
    def open(cls, url: str, busy_timeout: float = 5.0, patience: float = 60.0) -> Self:
        """Return the ledger at ``url``, made first if there is none yet.

        ``busy_timeout`` is how many seconds a call waits for other writers, ``patience`` how many for one answer of a
        server that hangs. A new SQLite file and its directory belong to this user only.

        Raises:
            SettingsError: for an address that cannot hold a ledger.
            HistoryUnavailable: when it does not answer, or its schema is older or newer.
        """
        database = SqlDatabase(url, busy_timeout, patience)
        try:
            open_schema(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def append(
        self,
        events: Sequence[JobEvent | RecordableEvent],
        journal_offset: JournalOffset | Sequence[JournalOffset] | None = None,
        lease: LeaseHold | None = None,
    ) -> bool:
        """Record events, each once: see ``JobHistoryStore.append``."""
        batch, offsets = recordables(events), listed_offsets(journal_offset)
        try:
            with self._database.writing() as connection:
                if lease is not None and not sql_nodes.holds_lease(connection, lease):
                    return False
                if offsets:
                    sql_journals.advance_journals(connection, offsets)
                record_events(connection, batch)
        except sql_journals.JournalMoved:
            return False
        return True

    def record_job_submission(self, job: JobSubmission) -> bool:
        """Record a new job with its snapshot; return False for an id that was submitted before."""
        event = recordable(submission_event(job))
        with self._database.writing() as connection:
            return bool(record_events(connection, [event]).events)

    def record_status_change(self, job_id: str, status: JobStatus, ts: datetime, error: str | None = None) -> None:
        """Record that a job's first attempt changed its status; for an unknown id too, to be filled in later."""
        self.append([status_change_event(job_id, status, ts, error)])

    def list_jobs(self, status: JobStatus | None = None, limit: int = 50, offset: int = 0) -> list[JobHistoryEntry]:
        """Return entries, newest first, ties by id."""
        with self._database.reading() as connection:
            return sql_lists.list_entries(connection, status, clamped(limit), offset)

    def page_jobs(self, job_filter: JobFilter, cursor: str | None = None, limit: int = 50) -> JobPage:
        """Return a page of the filtered jobs, newest first."""
        after = None if cursor is None else decode_cursor(cursor)
        if clamped(limit) == 0:
            return JobPage(entries=())
        database = self._database
        # A search bounds its statement for the length of a transaction.
        with database.reading() if job_filter.text else database.asking() as connection:
            return sql_lists.page_of(connection, job_filter, after, clamped(limit))

    def index_for_search(self, limit: int = 500) -> int:
        """Make what was recorded lately known to searches; return how many jobs were taken up, 0 for none left."""
        with self._database.writing() as connection:
            return sql_documents.index_documents(connection, _bound(limit))

    def get_job(self, job_id: str) -> JobHistoryEntry | None:
        """Return one entry, or ``None`` for an id that is not known."""
        return self.get_jobs([job_id]).get(job_id)

    def get_jobs(self, job_ids: Collection[str]) -> dict[str, JobHistoryEntry]:
        """Return the known ones among the ids."""
        possible = {job_id for job_id in job_ids if is_job_id(job_id)}
        if not possible:
            return {}
        with self._database.asking() as connection:
            rows = connection.execute(*select_listed(connection, jobs, "job_id", possible)).mappings()
            return {row["job_id"]: entry_of(row) for row in rows}

    def get_job_events(self, job_id: str) -> list[RecordedEvent]:
        """Return a job's events in the order of recording, log lines and progress left out."""
        if not is_job_id(job_id):
            return []
        of_job = select(job_events.c.seq, job_events.c.recorded_at, job_events.c.event)
        return self._events(of_job.where(job_events.c.job_id == job_id).order_by(job_events.c.seq))

    def get_job_log(self, job_id: str, limit: int = 200) -> list[RecordedEvent]:
        """Return the newest lines of a job's log, oldest first."""
        if not is_job_id(job_id):
            return []
        of_job = select(job_log.c.seq, job_log.c.recorded_at, job_log.c.event).where(job_log.c.job_id == job_id)
        return self._events(of_job.order_by(job_log.c.seq.desc()).limit(_bound(limit)))[::-1]

    def get_snapshot(self, job_id: str) -> Snapshot | None:
        """Return a job's sealed snapshot, if one was kept."""
        if not is_job_id(job_id):
            return None
        columns = [job_snapshots.c[name] for name in Snapshot.__struct_fields__]
        with self._database.reading() as connection:
            row = connection.execute(select(*columns).where(job_snapshots.c.job_id == job_id)).mappings().first()
        return Snapshot(**row) if row else None

    def request_cancel(self, intent: CancelIntent) -> JobHistoryEntry | None:
        """Commit the intent and its event if the job exists and has not ended; return its entry as it is then."""
        if not is_job_id(intent.job_id):
            return None
        with self._database.writing() as connection:
            return sql_cancels.request_cancel(connection, intent)

    def open_cancels(self, limit: int = 1_000) -> list[CancelIntent]:
        """Return intents whose jobs have not ended, oldest first."""
        with self._database.reading() as connection:
            return sql_cancels.open_cancels(connection, _bound(limit))

    def cancelled_ids_since(self, moment: datetime) -> list[str]:
        """Return the ids of all intents since ``moment``: what the broker's deny set must hold."""
        with self._database.reading() as connection:
            return sql_cancels.cancelled_ids_since(connection, moment)

    def has_cancel_intent(self, job_id: str) -> bool:
        """Whether somebody asked for the job's end."""
        if not is_job_id(job_id):
            return False
        with self._database.reading() as connection:
            return sql_cancels.has_cancel_intent(connection, job_id)

    def journal_ends(self, journals: Collection[str]) -> dict[str, int]:
        """Return up to which byte each of the journals is recorded; unknown ones are missing."""
        with self._database.reading() as connection:
            return sql_journals.journal_ends(connection, journals)

    def record_poison(self, journal: str, offset: int, line: bytes, reason: str) -> None:
        """Set a line aside that nobody can read, with its place and the reason; once for each place."""
        with self._database.writing() as connection:
            sql_journals.record_poison(connection, journal, offset, line, reason)

    def list_poison(self, after: PoisonPlace | None = None, limit: int = 100) -> list[PoisonLine]:
        """Return lines that were set aside, by their places, those behind ``after``."""
        with self._database.reading() as connection:
            return sql_journals.list_poison(connection, after, _bound(limit))

    def newest_poison(self, limit: int = 5) -> list[PoisonLine]:
        """Return the lines of the newest journals, last ones first."""
        with self._database.reading() as connection:
            return sql_journals.newest_poison(connection, _bound(limit))

    def get_poison(self, place: PoisonPlace) -> PoisonLine | None:
        """Return one line that was set aside, or ``None``."""
        with self._database.reading() as connection:
            return sql_journals.get_poison(connection, place)

    def release_poison(self, place: PoisonPlace, event: JobEvent | None, dropped: int = 0) -> bool:
        """Record what a line turned out to say and remove the line; False if it is not there."""
        events = [] if event is None else [recordable(event)]
        with self._database.writing() as connection:
            if not sql_journals.remove_poison(connection, place):
                return False
            sql_journals.count_dropped(connection, place.journal, dropped)
            record_events(connection, events)
        return True

    def blame_poison(self, place: PoisonPlace, reason: str) -> None:
        """Give a line that was set aside another reason."""
        with self._database.writing() as connection:
            sql_journals.blame_poison(connection, place, reason)

    def recording_gaps(self) -> list[RecordingGap]:
        """Return the journals with dropped or unreadable events, by name."""
        with self._database.reading() as connection:
            return sql_journals.recording_gaps(connection)

    def record_node(self, node: Node) -> None:
        """Record a node's boot; an earlier boot of the same id is replaced."""
        with self._database.writing() as connection:
            sql_nodes.record_node(connection, node)

    def record_heartbeats(self, boot_ids: Collection[str], at: datetime) -> None:
        """Count every named node's heartbeat up by one."""
        with self._database.writing() as connection:
            sql_nodes.record_heartbeats(connection, boot_ids, at)

    def end_node(self, boot_id: str, how: NodeEnd, at: datetime) -> None:
        """Record the end of a boot, after all of its journals were recorded; the first end stays."""
        with self._database.writing() as connection:
            sql_nodes.end_node(connection, boot_id, how, at)

    def ended_boots(self, boot_ids: Collection[str]) -> set[str]:
        """Return which of the boots are known to have ended."""
        with self._database.reading() as connection:
            return sql_nodes.ended_boots(connection, boot_ids)

    def list_nodes(self, include_ended: bool = False) -> list[Node]:
        """Return the nodes, newest boot first."""
        with self._database.reading() as connection:
            return sql_nodes.list_nodes(connection, include_ended=include_ended)

    def list_jobs_of_ended_nodes(self, limit: int = 500) -> list[JobHistoryEntry]:
        """Return unfinished jobs whose latest run was on a boot that has ended, oldest first."""
        with self._database.reading() as connection:
            return sql_nodes.list_jobs_of_ended_nodes(connection, _bound(limit))

    def end_journal(self, journal: str) -> None:
        """Record that a journal's file is deleted, all of it recorded; retention removes its row later."""
        with self._database.writing() as connection:
            sql_journals.end_journal(connection, journal)

    def list_ended_jobs(
        self, submitted_before: Mapping[JobStatus, datetime | None], after: JobCursor | None = None, limit: int = 50
    ) -> list[JobHistoryEntry]:
        """Return ended jobs of the statuses, oldest first by submission, each status up to its moment if it has one."""
        with self._database.reading() as connection:
            return sql_retention.list_ended_jobs(connection, submitted_before, after, _bound(limit))

    def jobs_with_active_retries(self, entries: Collection[JobHistoryEntry]) -> set[str]:
        """Return the ids of those of the jobs of which a retry waits or runs."""
        if not entries:
            return set()
        with self._database.reading() as connection:
            return sql_retention.jobs_with_active_retries(connection, entries)

    def get_events_of_jobs(self, job_ids: Collection[str]) -> dict[str, list[RecordedEvent]]:
        """Return the events of each job, like ``get_job_events``; a job without any is missing."""
        with self._database.reading() as connection:
            rows = sql_retention.events_of_jobs(connection, [job_id for job_id in job_ids if is_job_id(job_id)])
            found: dict[str, list[RecordedEvent]] = {}
            for row in rows:
                found.setdefault(row.job_id, []).append(_recorded_event(row))
        return found

    def remove_jobs(self, entries: Collection[JobHistoryEntry], lease: LeaseHold) -> set[str] | None:
        """Remove ended jobs with everything about them: see ``JobHistoryStore.remove_jobs``."""
        with self._database.writing() as connection:
            return sql_retention.remove_jobs(connection, entries) if sql_nodes.holds_lease(connection, lease) else None

    def remove_rest(self, before: datetime | None, lease: LeaseHold) -> int | None:
        """Remove some of what else is too old: see ``JobHistoryStore.remove_rest``."""
        with self._database.writing() as connection:
            return sql_retention.remove_rest(connection, before) if sql_nodes.holds_lease(connection, lease) else None

    def counts(self) -> LedgerCounts:
        """Return how many jobs there are by status, and what else was counted."""
        with self._database.asking() as connection:
            return read_counts(connection)

    def statistics(
        self, since: datetime, until: datetime, task: str | None = None, queue: str | None = None
    ) -> Statistics:
        """Return what the jobs did between two moments: see ``JobHistoryStore.statistics``."""
        wanted = range_between(since, until)
        with self._database.reading() as connection:
            return statistics_in(connection, wanted, task, queue)

    def failure_groups(self, cursor: str | None = None, limit: int = 50) -> FailureGroupPage:
        """Return a page of the groups of failed jobs, the one that failed last first."""
        after = None if cursor is None else decode_cursor(cursor)
        if clamped(limit) == 0:
            return FailureGroupPage(groups=())
        with self._database.reading() as connection:
            return page_failure_groups(connection, after, clamped(limit))

    def acquire_lease(self, name: str, holder: str, seconds: float) -> int | None:
        """Take or renew a lease; return its fencing number, or ``None`` while somebody else holds it."""
        with self._database.writing() as connection:
            return sql_nodes.acquire_lease(connection, name, holder, seconds)

    def release_lease(self, name: str, holder: str) -> None:
        """Give a lease back, if the holder has it."""
        with self._database.writing() as connection:
            sql_nodes.release_lease(connection, name, holder)

    def lease_holder(self, name: str) -> str | None:
        """Return who holds a lease now; ``None`` when it is free, given back or has run out."""
        with self._database.reading() as connection:
            return sql_nodes.lease_holder(connection, name)

    def lease_left(self, name: str) -> float | None:
        """Return for how many more seconds a lease is held, by the ledger's clock; ``None`` when it is free."""
        with self._database.reading() as connection:
            return sql_nodes.lease_left(connection, name)

    def check_writing(self) -> None:
        """Raise when the ledger cannot be written; changes nothing."""
        with self._database.writing() as connection:
            sql_nodes.touch_leases(connection)

    def check(self) -> None:
        """Ask the ledger the cheapest question there is; raises when it does not answer."""
        with self._database.reading() as connection:
            connection.execute(select(jobs.c.job_id).limit(1))

    def close(self) -> None:
        """Give the connections back."""
        self._database.close()

    def _events(self, query: Select[Any]) -> list[RecordedEvent]:
        with self._database.reading() as connection:
            return [_recorded_event(row) for row in connection.execute(query)]


def _recorded_event(row: Row[Any]) -> RecordedEvent:
    return RecordedEvent(seq=row.seq, recorded_at=row.recorded_at, event=_EVENT.decode(row.event))


def _bound(limit: int) -> int:
    return max(0, min(limit, 2**31))
