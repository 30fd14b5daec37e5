"""The sums over all jobs, in SQL: each is added to in the transaction that changes its jobs."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Connection, Table, case
from sqlalchemy.dialects import postgresql, sqlite

from .schema import failure_groups, job_statistics, totals
from .sql_statements import insert_into
from .sums import FailureTally, StatisticKey, Sums

#: Writers that can add to one sum at once on PostgreSQL; SQLite has one writer.
_SHARDS: Final = 8


def add_sums(connection: Connection, sums: Sums) -> None:
    """Add what a batch changed; every writer takes the rows in the same order, so that none waits for each other."""
    dialect = connection.dialect.name
    shard = 0 if dialect == "sqlite" else os.getpid() % _SHARDS
    _add(connection, _adding(dialect, totals), _total_rows(sums, shard))
    _add(connection, _adding(dialect, job_statistics), _statistic_rows(sums, shard))
    _add(connection, _adding_failures(dialect), _failure_rows(sums, shard))


def _add(connection: Connection, statement: Any, rows: Iterable[dict[str, Any]]) -> None:
    listed = list(rows)
    if listed:
        connection.execute(statement, listed)


def _total_rows(sums: Sums, shard: int) -> Iterable[dict[str, Any]]:
    counts = {name.value: count for name, count in sums.totals.items() if count}
    return ({"name": name, "shard": shard, "count": counts[name]} for name in sorted(counts))


def _statistic_rows(sums: Sums, shard: int) -> Iterable[dict[str, Any]]:
    changed = sorted((key, count) for key, count in sums.statistics.items() if count)
    return (_statistic_row(key, shard, count) for key, count in changed)


def _statistic_row(key: StatisticKey, shard: int, count: int) -> dict[str, Any]:
    return {
        "minute": key.minute,
        "task": key.task,
        "queue": key.queue,
        "measure": key.measure.value,
        "bucket": key.bucket,
        "shard": shard,
        "count": count,
    }


def _failure_rows(sums: Sums, shard: int) -> Iterable[dict[str, Any]]:
    return (_failure_row(sums.failures[fingerprint], shard) for fingerprint in sorted(sums.failures))


def _failure_row(tally: FailureTally, shard: int) -> dict[str, Any]:
    return {
        **tally.group._asdict(),
        "shard": shard,
        "count": tally.count,
        "first_seen_at": tally.first_seen_at,
        "last_seen_at": tally.last_seen_at,
        "example_job_id": tally.example_job_id,
    }


@functools.cache
def _adding(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    statement = insert_into(dialect, table)
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key), set_={"count": table.c["count"] + statement.excluded["count"]}
    )


@functools.cache
def _adding_failures(dialect: str) -> sqlite.Insert | postgresql.Insert:
    kept = failure_groups.c
    statement = insert_into(dialect, failure_groups)
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
