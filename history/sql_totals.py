"""The totals over all jobs in SQL: a handful of rows, whatever the number of jobs."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from .schema import totals
from .statistics import LedgerCounts, counts_of

_SUMMED = select(totals.c.name, func.sum(totals.c["count"])).group_by(totals.c.name)


def read_counts(connection: Connection) -> LedgerCounts:
    """Return how many jobs there are, by status, and what else was counted."""
    return counts_of({name: int(count) for name, count in connection.execute(_SUMMED)})
