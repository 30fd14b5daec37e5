"""The one write path of events: append them, and fold them into their jobs' rows."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Delete, Select, bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from .event import now
from .event_batch import LOG_LINES, EventBatch
from .job import JobHistoryEntry
from .job_row import row_of
from .recordable import RecordableEvent
from .schema import job_events, job_log, job_snapshots, jobs
from .sql_bulk import append_rows, fetch, inserting, merge_rows, updating
from .sql_documents import note_for_search
from .sql_labels import relabel
from .sql_pruned import pruned_among
from .sql_rows import entries_of, microseconds_of, raw_columns
from .sql_statements import select_listed
from .sql_sums import add_sums
from .sums import Tally

_COLUMNS: Final = tuple(jobs.c.keys())
_EVENT_COLUMNS: Final = ("job_id", "kind", "at", "recorded_at", "event")
_LOG_COLUMNS: Final = ("job_id", "recorded_at", "event")
_SNAPSHOT_COLUMNS: Final = ("job_id", "rank", "sealed", "digest", "size", "key_fingerprint")
_UNIQUE_VIOLATION: Final = "23505"
#: Each lost try means that another writer got on; so many in a row have another cause.
_TRIES: Final = 100

_Row = tuple[Any, ...]


def record_events(connection: Connection, events: Sequence[RecordableEvent]) -> EventBatch:
    """Record the events inside the caller's transaction; return what they added."""
    batch = _fold_into_rows(connection, events)
    recorded_at = now()
    _append_events(connection, batch.events, recorded_at)
    _keep_snapshots(connection, batch)
    _append_log(connection, batch.log, recorded_at)
    relabel(connection, batch.known, batch.changed)
    note_for_search(connection, batch.known, batch.changed)
    add_sums(connection, batch.sums)
    return batch


def locked_entries(connection: Connection, job_ids: Iterable[str]) -> dict[str, JobHistoryEntry]:
    """Return the known ones of the jobs, each locked against other writers until the transaction ends."""
    return {entry.job_id: entry for entry in entries_of(_locked_rows(connection, job_ids))}


def _fold_into_rows(connection: Connection, events: Sequence[RecordableEvent]) -> EventBatch:
    if connection.dialect.name == "sqlite":
        return _try_to_fold(connection, events)
    # A row that is not there cannot be locked. Where another writer inserts the same job first, all locks are given
    # back and taken anew, so that every writer takes them in one order: known jobs by their id, then the new ones.
    for tries_left in reversed(range(_TRIES)):
        try:
            with connection.begin_nested():
                return _try_to_fold(connection, events)
        except connection.dialect.loaded_dbapi.Error as error:
            if tries_left == 0 or getattr(error, "sqlstate", None) != _UNIQUE_VIOLATION:
                raise
    raise AssertionError("a try either returns or raises")


def _try_to_fold(connection: Connection, events: Sequence[RecordableEvent]) -> EventBatch:
    rows = {row[0]: row for row in _locked_rows(connection, {recordable.event.job_id for recordable in events})}
    living = _without_pruned(connection, rows, events)
    batch = EventBatch(dict(zip(rows, entries_of(rows.values()), strict=True)), living)
    batch.sums.totals[Tally.EVENTS_AFTER_REMOVAL] += len(events) - len(living)
    _write_rows(connection, rows, batch.changed)
    return batch


def _locked_rows(connection: Connection, job_ids: Iterable[str]) -> list[_Row]:
    query, parameters = select_listed(connection, jobs, "job_id", job_ids)
    return fetch(connection, _locking(query), parameters)


@functools.cache
def _locking(query: Select[Any]) -> Select[Any]:
    return query.with_only_columns(*raw_columns()).with_for_update()


def _without_pruned(
    connection: Connection, rows: Mapping[str, _Row], events: Sequence[RecordableEvent]
) -> Sequence[RecordableEvent]:
    pruned = pruned_among(connection, {recordable.event.job_id for recordable in events}.difference(rows))
    return [recordable for recordable in events if recordable.event.job_id not in pruned] if pruned else events


def _write_rows(connection: Connection, rows: Mapping[str, _Row], entries: Iterable[JobHistoryEntry]) -> None:
    """Insert the new ones; of the others write what changed, or every index would be written again."""
    new: list[_Row] = []
    changes: defaultdict[tuple[int, ...], list[_Row]] = defaultdict(list)
    for entry in entries:
        row, old = row_of(entry), rows.get(entry.job_id)
        if old is None:
            new.append(row)
            continue
        changed = tuple([at for at, value in enumerate(row) if value != old[at]])
        changes[changed].append((*[row[at] for at in changed], entry.job_id))
    append_rows(connection, jobs, _COLUMNS, new)
    for changed, values in changes.items():
        columns = (*[_COLUMNS[at] for at in changed], "job_id")
        merge_rows(connection, updating(connection.dialect.name, jobs, columns), columns, values)


def _append_events(
    connection: Connection, events: Mapping[str, Sequence[RecordableEvent]], recorded_at: datetime
) -> None:
    moment = microseconds_of(recorded_at)
    # Each job's events in their order, one job after the other: so they meet their places in the index.
    rows = [
        (job_id, of_job.event.kind.value, microseconds_of(of_job.event.at), moment, of_job.text)
        for job_id in sorted(events)
        for of_job in events[job_id]
    ]
    append_rows(connection, job_events, _EVENT_COLUMNS, rows)


def _keep_snapshots(connection: Connection, batch: EventBatch) -> None:
    new: list[_Row] = []
    others: list[_Row] = []
    for job_id, (rank, kept) in sorted(batch.snapshots.items()):
        row = (job_id, rank, kept.sealed, kept.digest, kept.size, kept.key_fingerprint)
        (others if job_id in batch.known else new).append(row)
    append_rows(connection, job_snapshots, _SNAPSHOT_COLUMNS, new)
    merge_rows(connection, _keeping_stronger(connection.dialect.name), _SNAPSHOT_COLUMNS, others)


@functools.cache
def _keeping_stronger(dialect: str) -> sqlite.Insert | postgresql.Insert:
    statement = inserting(dialect, job_snapshots, _SNAPSHOT_COLUMNS)
    return statement.on_conflict_do_update(
        index_elements=[job_snapshots.c.job_id],
        set_={name: statement.excluded[name] for name in _SNAPSHOT_COLUMNS[1:]},
        where=statement.excluded.rank > job_snapshots.c.rank,
    )


def _append_log(connection: Connection, log: Mapping[str, Sequence[RecordableEvent]], recorded_at: datetime) -> None:
    if not log:
        return
    moment = microseconds_of(recorded_at)
    rows = [(job_id, moment, line.text) for job_id, lines in log.items() for line in lines[-LOG_LINES:]]
    append_rows(connection, job_log, _LOG_COLUMNS, rows)
    connection.execute(_TRIM_LOG, [{"trimmed": job_id} for job_id in log])


def _log_trimming() -> Delete:
    of_job = job_log.c.job_id == bindparam("trimmed")
    too_old = select(job_log.c.seq).where(of_job).order_by(job_log.c.seq.desc()).offset(LOG_LINES).limit(1)
    return delete(job_log).where(of_job, job_log.c.seq <= too_old.scalar_subquery())


_TRIM_LOG = _log_trimming()
