"""The groups of failures in SQL: listed newest first, and pruned when their last job is gone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Select, func, literal, select, tuple_

from .failure_group_page import FailureGroupPage, FailureGroupSummary, page_of_groups
from .job_cursor import JobCursor
from .schema import Identifier, UtcMicroseconds, failure_groups, jobs
from .sql_bulk import deleting, merge_rows
from .sql_statements import select_listed

_BEFORE_ALL: Final = JobCursor(datetime.max.replace(tzinfo=UTC), "")
_groups = failure_groups.c
_KEY: Final = ("fingerprint", "shard")
#: Groups that one transaction removes at most: others wait for it.
_PRUNED_AT_ONCE: Final = 1_000
_WHAT: Final = (_groups.fingerprint, _groups.error_type, _groups.pattern, _groups.frame)


def page_failure_groups(connection: Connection, after: JobCursor | None, limit: int) -> FailureGroupPage:
    """Return the page of groups after the cursor, the one that failed last first; ``limit`` is at least 1."""
    rows = connection.execute(_page(after or _BEFORE_ALL, limit + 1)).mappings()
    groups = [FailureGroupSummary(**dict(row) | {"count": int(row["count"])}) for row in rows]
    return page_of_groups(_with_examples(connection, groups), limit)


def _page(after: JobCursor, limit: int) -> Select[Any]:
    newest = _newest_rows(after, limit).subquery()
    last_seen = func.max(_groups.last_seen_at, type_=UtcMicroseconds())
    return (
        select(
            *_WHAT,
            newest.c.example_job_id,
            func.sum(_groups["count"]).label("count"),
            func.min(_groups.first_seen_at, type_=UtcMicroseconds()).label("first_seen_at"),
            last_seen.label("last_seen_at"),
        )
        .where(_groups.fingerprint == newest.c.fingerprint)
        .group_by(*_WHAT, newest.c.example_job_id)
        .order_by(last_seen.desc(), _groups.fingerprint.desc())
    )


def _newest_rows(after: JobCursor, limit: int) -> Select[Any]:
    """Walks the index by age; of a group's few shards the newest one stands for it."""
    other = failure_groups.alias("other")
    same = other.c.fingerprint == _groups.fingerprint
    is_newer = tuple_(other.c.last_seen_at, other.c.shard) > tuple_(_groups.last_seen_at, _groups.shard)
    total = select(func.sum(other.c["count"])).where(same).scalar_subquery()
    place = tuple_(literal(after.created_at, UtcMicroseconds()), literal(after.job_id, Identifier))
    is_behind = tuple_(_groups.last_seen_at, _groups.fingerprint) < place
    is_newest = ~select(other.c.shard).where(same, is_newer).exists()
    newest = select(_groups.fingerprint, _groups.example_job_id).where(is_behind, is_newest, total > 0)
    return newest.order_by(_groups.last_seen_at.desc(), _groups.fingerprint.desc()).limit(limit)


def _with_examples(connection: Connection, groups: list[FailureGroupSummary]) -> list[FailureGroupSummary]:
    """An example may have been corrected or removed since: then the group's newest job takes its place."""
    query, parameters = select_listed(connection, jobs, "job_id", {group.example_job_id for group in groups})
    known = query.with_only_columns(jobs.c.job_id, jobs.c.failure_group)
    group_of = {row.job_id: row.failure_group for row in connection.execute(known, parameters)}
    return [
        group if group_of.get(group.example_job_id) == group.fingerprint else _with_newest_job(connection, group)
        for group in groups
    ]


def _with_newest_job(connection: Connection, group: FailureGroupSummary) -> FailureGroupSummary:
    job_id = connection.scalar(_newest_job(group.fingerprint))
    return msgspec.structs.replace(group, example_job_id=job_id or group.example_job_id)


def _newest_job(fingerprint: str) -> Select[tuple[str]]:
    # A range and not an equality, and the whole order: else the planner may walk all jobs by their age instead.
    column = jobs.c.failure_group
    of_group = (column.is_not(None), column >= fingerprint, column <= fingerprint)
    newest_first = (column.desc(), jobs.c.created_at.desc(), jobs.c.job_id.desc())
    return select(jobs.c.job_id).where(*of_group).order_by(*newest_first).limit(1)


def prune_failure_groups(connection: Connection) -> int:
    """Remove some groups without a job, inside the caller's transaction; return how many rows went, 0 for none left."""
    total = func.sum(_groups["count"])
    groups = select(_groups.fingerprint).group_by(_groups.fingerprint).having(total <= 0).limit(_PRUNED_AT_ONCE)
    empty = connection.scalars(groups).all()
    if not empty:
        return 0
    # Locked before they are counted again: a writer may just now add a job to one.
    query, parameters = select_listed(connection, failure_groups, "fingerprint", empty)
    locked = connection.execute(query.with_for_update(), parameters).all()
    counts = dict.fromkeys(empty, 0)
    for row in locked:
        counts[row.fingerprint] += row._mapping["count"]
    gone = [(row.fingerprint, row.shard) for row in locked if counts[row.fingerprint] <= 0]
    merge_rows(connection, deleting(connection.dialect.name, failure_groups, _KEY), _KEY, gone)
    return len(gone)
