"""The sums over all jobs, in SQL: each is added to in the transaction that changes its jobs."""

from __future__ import annotations

import functools
import os
from collections import Counter
from typing import Any, Final

from sqlalchemy import Connection, Table, case
from sqlalchemy.dialects import postgresql, sqlite

from .schema import failure_groups, job_statistics, totals
from .sql_bulk import inserting, merge_rows
from .sql_rows import microseconds_of
from .sums import SPANS, FailureTally, Sums

#: Writers that can add to one sum at once on PostgreSQL; SQLite has one writer.
_SHARDS: Final = 8

_Row = tuple[Any, ...]


def add_sums(connection: Connection, sums: Sums) -> None:
    """Add what a batch changed; every writer takes the rows in the same order, so that none waits for each other."""
    dialect = connection.dialect.name
    shard = 0 if dialect == "sqlite" else os.getpid() % _SHARDS
    merge_rows(connection, _adding(dialect, totals), _columns(totals), _total_rows(sums, shard))
    merge_rows(connection, _adding(dialect, job_statistics), _columns(job_statistics), _statistic_rows(sums, shard))
    merge_rows(connection, _adding_failures(dialect), _columns(failure_groups), _failure_rows(sums, shard))


def _columns(table: Table) -> tuple[str, ...]:
    return tuple(table.c.keys())


def _total_rows(sums: Sums, shard: int) -> list[_Row]:
    return sorted((name.value, shard, count) for name, count in sums.totals.items() if count)


def _statistic_rows(sums: Sums, shard: int) -> list[_Row]:
    spread: Counter[_Row] = Counter()
    for (minute, task, queue, measure, bucket), count in sums.statistics.items():
        for span in SPANS:
            spread[span, measure.value, minute - minute % span, task, queue, bucket] += count
    return [(*key, shard, count) for key, count in sorted(spread.items()) if count]


def _failure_rows(sums: Sums, shard: int) -> list[_Row]:
    return [_failure_row(sums.failures[fingerprint], shard) for fingerprint in sorted(sums.failures)]


def _failure_row(tally: FailureTally, shard: int) -> _Row:
    group = tally.group
    return (
        group.fingerprint,
        shard,
        group.error_type,
        group.pattern,
        group.frame,
        tally.count,
        microseconds_of(tally.first_seen_at),
        microseconds_of(tally.last_seen_at),
        tally.example_job_id,
    )


@functools.cache
def _adding(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    statement = inserting(dialect, table, _columns(table))
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key), set_={"count": table.c["count"] + statement.excluded["count"]}
    )


@functools.cache
def _adding_failures(dialect: str) -> sqlite.Insert | postgresql.Insert:
    kept = failure_groups.c
    statement = inserting(dialect, failure_groups, _columns(failure_groups))
    new = statement.excluded
    is_newer = new.last_seen_at >= kept.last_seen_at
    return statement.on_conflict_do_update(
        index_elements=list(failure_groups.primary_key),
        set_={
            "count": kept["count"] + new["count"],
            "first_seen_at": case(
                (new.first_seen_at < kept.first_seen_at, new.first_seen_at), else_=kept.first_seen_at
            ),
            "last_seen_at": case((is_newer, new.last_seen_at), else_=kept.last_seen_at),
            "example_job_id": case((is_newer, new.example_job_id), else_=kept.example_job_id),
        },
    )
