"""The one write path of events: append them, and fold them into their jobs' rows."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from sqlalchemy import (
    ARRAY,
    Connection,
    Delete,
    Text,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from .event import JobEvent, now
from .event_batch import LOG_LINES, EventBatch, RankedSnapshot
from .job import JobHistoryEntry
from .job_row import entry_of, row_of
from .schema import job_events, job_log, job_snapshots, jobs
from .sql_labels import relabel
from .sql_statements import insert_into, new_values, select_listed, upsert
from .sql_sums import add_sums

_BLANK = row_of(JobHistoryEntry(job_id="", created_at=datetime.fromtimestamp(0, UTC)))
_REQUIRED = [column for column in jobs.c if not column.nullable and not column.primary_key]


def record_events(connection: Connection, events: Sequence[JobEvent]) -> EventBatch:
    """Record the events inside the caller's transaction; return what they added."""
    known = _claimed_entries(connection, {event.job_id for event in events})
    batch = EventBatch(known, events)
    recorded_at = now()
    _write_rows(connection, batch.changed)
    _write_events(connection, batch.events, recorded_at)
    _write_snapshots(connection, batch.snapshots)
    _write_log(connection, batch.log, recorded_at)
    relabel(connection, known, batch.changed)
    add_sums(connection, batch.sums)
    return batch


def _claimed_entries(connection: Connection, job_ids: Collection[str]) -> dict[str, JobHistoryEntry]:
    if connection.dialect.name == "sqlite":
        return locked_entries(connection, job_ids)
    # A row that is not there cannot be locked, so PostgreSQL gets blank ones first; SQLite has one writer.
    blank = _claim(connection, job_ids)
    entries = locked_entries(connection, job_ids)
    return {job_id: entry for job_id, entry in entries.items() if job_id not in blank}


def _claim(connection: Connection, job_ids: Collection[str]) -> set[str]:
    each = func.unnest(bindparam(None, sorted(job_ids), ARRAY(Text))).column_valued("job_id")
    values = [literal(_BLANK[column.name], column.type) for column in _REQUIRED]
    claim = postgresql.insert(jobs).from_select([jobs.c.job_id, *_REQUIRED], select(each, *values))
    return set(connection.scalars(claim.on_conflict_do_nothing().returning(jobs.c.job_id)))


def _write_rows(connection: Connection, entries: Sequence[JobHistoryEntry]) -> None:
    if entries:
        connection.execute(upsert(connection.dialect.name, jobs), [row_of(entry) for entry in entries])


def _write_events(connection: Connection, events: Sequence[JobEvent], recorded_at: datetime) -> None:
    if not events:
        return
    rows = [
        {
            "job_id": event.job_id,
            "kind": event.kind.value,
            "at": event.at,
            "recorded_at": recorded_at,
            "event": msgspec.json.encode(event).decode(),
        }
        for event in events
    ]
    connection.execute(insert(job_events), rows)


def _write_snapshots(connection: Connection, snapshots: Mapping[str, RankedSnapshot]) -> None:
    if not snapshots:
        return
    connection.execute(
        _upsert_stronger(connection.dialect.name),
        [
            {"job_id": job_id, "rank": rank, **msgspec.structs.asdict(snapshot)}
            for job_id, (rank, snapshot) in snapshots.items()
        ],
    )


@functools.cache
def _upsert_stronger(dialect: str) -> sqlite.Insert | postgresql.Insert:
    statement = insert_into(dialect, job_snapshots)
    return statement.on_conflict_do_update(
        index_elements=[job_snapshots.c.job_id],
        set_=new_values(statement, job_snapshots),
        where=statement.excluded.rank > job_snapshots.c.rank,
    )


def _write_log(connection: Connection, log: Mapping[str, Sequence[JobEvent]], recorded_at: datetime) -> None:
    if not log:
        return
    rows = [
        {"job_id": job_id, "recorded_at": recorded_at, "event": msgspec.json.encode(line).decode()}
        for job_id, lines in log.items()
        for line in lines[-LOG_LINES:]
    ]
    connection.execute(insert(job_log), rows)
    connection.execute(_TRIM_LOG, [{"trimmed": job_id} for job_id in log])


def _log_trimming() -> Delete:
    of_job = job_log.c.job_id == bindparam("trimmed")
    too_old = select(job_log.c.seq).where(of_job).order_by(job_log.c.seq.desc()).offset(LOG_LINES).limit(1)
    return delete(job_log).where(of_job, job_log.c.seq <= too_old.scalar_subquery())


_TRIM_LOG = _log_trimming()


def locked_entries(connection: Connection, job_ids: Iterable[str]) -> dict[str, JobHistoryEntry]:
    """Return the known ones of the jobs, each locked against other writers until the transaction ends."""
    # Every writer locks in this order, so that two of them never wait for each other.
    query, parameters = select_listed(connection, jobs, "job_id", job_ids)
    rows = connection.execute(query.with_for_update(), parameters).mappings()
    return {row["job_id"]: entry_of(row) for row in rows}
