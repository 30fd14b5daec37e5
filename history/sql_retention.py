"""The end of old jobs, in SQL: all of a job's rows at once, and what is left of journals, nodes and statistics."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    delete,
    literal,
    select,
    tuple_,
    union_all,
)

from .event import now
from .job import JobHistoryEntry, JobStatus
from .job_cursor import JobCursor
from .job_history_store import PRUNED_REMEMBERED
from .schema import (
    ON_A_NODE,
    UNFINISHED,
    Identifier,
    UtcMicroseconds,
    job_events,
    jobs,
    journals,
    nodes,
    pruned_jobs,
)
from .sql_documents import remove_documents
from .sql_failure_groups import prune_failure_groups
from .sql_labels import remove_labels
from .sql_pruned import remember_pruned
from .sql_recording import locked_entries
from .sql_rows import entries_of, raw_columns
from .sql_statements import delete_listed, select_listed
from .sql_statistics import prune_statistics
from .sql_sums import add_sums
from .sums import Sums

#: Rows of one table that one transaction removes of what is left.
_REST_BATCH: Final = 1_000


def list_ended_jobs(
    connection: Connection,
    submitted_before: Mapping[JobStatus, datetime | None],
    after: JobCursor | None,
    limit: int,
) -> list[JobHistoryEntry]:
    """Return jobs of the statuses, oldest first, from behind the cursor on."""
    heads = [_oldest(status, before, after, limit) for status, before in submitted_before.items() if status.is_terminal]
    if not heads:
        return []
    merged = union_all(*(select(head.subquery()) for head in heads)).subquery()
    query = select(*raw_columns(merged)).order_by(merged.c.created_at, merged.c.job_id).limit(limit)
    return entries_of(connection.execute(query))


def _oldest(status: JobStatus, before: datetime | None, after: JobCursor | None, limit: int) -> Select[Any]:
    query = select(jobs).where(jobs.c.status == status.value).order_by(jobs.c.created_at, jobs.c.job_id).limit(limit)
    if before is not None:
        query = query.where(jobs.c.created_at < before)
    return query if after is None else query.where(_behind(after))


def _behind(after: JobCursor) -> ColumnElement[bool]:
    place = tuple_(literal(after.created_at, UtcMicroseconds()), literal(after.job_id, Identifier))
    return tuple_(jobs.c.created_at, jobs.c.job_id) > place


def jobs_with_active_retries(connection: Connection, entries: Iterable[JobHistoryEntry]) -> set[str]:
    """Return the ids of those of which a retry waits or runs."""
    families = {entry.job_id: (entry.facts.root_id if entry.facts else None) or entry.job_id for entry in entries}
    query, parameters = select_listed(connection, jobs, "root_id", set(families.values()))
    retries = query.with_only_columns(jobs.c.retry_of).where(UNFINISHED)
    return families.keys() & set(connection.scalars(retries, parameters))


def events_of_jobs(connection: Connection, job_ids: Iterable[str]) -> list[Row[Any]]:
    """Return the rows of the jobs' events, in the order of recording."""
    query, parameters = select_listed(connection, job_events, "job_id", job_ids)
    return list(connection.execute(query.order_by(None).order_by(job_events.c.seq), parameters))


def remove_jobs(connection: Connection, expected: Collection[JobHistoryEntry]) -> set[str]:
    """Remove those of the jobs that are still as expected, and need not stay; return their ids."""
    current = locked_entries(connection, [entry.job_id for entry in expected])
    unchanged = [entry for entry in expected if entry.status.is_terminal and current.get(entry.job_id) == entry]
    needed = jobs_with_active_retries(connection, unchanged)
    going = [entry for entry in unchanged if entry.job_id not in needed]
    if going:
        _remove(connection, going, {entry.job_id for entry in going})
    return {entry.job_id for entry in going}


def _remove(connection: Connection, going: Sequence[JobHistoryEntry], job_ids: Collection[str]) -> None:
    remember_pruned(connection, job_ids, now())
    # The job's own row first: only then do its events let themselves be removed. The rest goes with it.
    delete_listed(connection, jobs, "job_id", job_ids)
    delete_listed(connection, job_events, "job_id", job_ids)
    remove_labels(connection, going)
    remove_documents(connection, going)
    sums = Sums()
    for entry in going:
        sums.remove(entry)
    add_sums(connection, sums)


def remove_rest(connection: Connection, before: datetime | None) -> int:
    """Remove some of what else is too old; return how many rows, 0 when nothing is left."""
    rows = _delete_some(connection, pruned_jobs, pruned_jobs.c.removed_at < now() - PRUNED_REMEMBERED)
    rows += prune_statistics(connection, before) + prune_failure_groups(connection)
    if before is None:
        return rows
    needed = select(jobs.c.run_boot_id).where(ON_A_NODE)
    rows += _delete_some(connection, nodes, and_(nodes.c.ended_at < before, nodes.c.boot_id.not_in(needed)))
    rows += _delete_some(connection, journals, journals.c.ended_at < before)
    return rows


def _delete_some(connection: Connection, table: Table, condition: ColumnElement[bool]) -> int:
    [key] = table.primary_key
    some = select(key).where(condition).limit(_REST_BATCH)
    return connection.execute(delete(table).where(key.in_(some))).rowcount
