"""The sums of a ledger, counted again from its jobs.

``differences(store)`` says where the sums that a ledger keeps are not what its jobs add up to, for any of the three
ledgers; an empty list means that all are equal. ``first_seen_at`` and the like are no sums, and the tallies cannot be
counted again. It reads every job, page by page. After retention removed jobs, give ``statistics=False``: the
statistics of their minutes stay.

    from .recount import differences
    assert differences(store) == []
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from jobledger.history.job import JobHistoryEntry, JobStatus
from jobledger.history.job_history_store import JobFilter, JobHistoryStore
from jobledger.history.memory_store import MemoryJobHistoryStore
from jobledger.history.schema import failure_groups, job_statistics
from jobledger.history.sql_store import SqlJobHistoryStore
from jobledger.history.sums import SPANS, Sums
from sqlalchemy import func, select


def differences(store: JobHistoryStore, *, statistics: bool = True) -> list[str]:
    """Return each sum that is wrong, as a sentence."""
    counted = Sums()
    for entry in _entries(store):
        counted.replace(None, entry)
    counts = store.counts().statuses
    groups = {fingerprint: tally.count for fingerprint, tally in counted.failures.items()}
    found = _unequal("jobs that are", {status: counted.totals[status] for status in JobStatus}, counts)
    found += _unequal("failures of group", groups, _kept_groups(store))
    if statistics:
        found += _unequal("statistics of", _spread(counted), _kept_statistics(store))
    return found


def _entries(store: JobHistoryStore) -> Iterator[JobHistoryEntry]:
    cursor = None
    while True:
        page = store.page_jobs(JobFilter(), cursor, 500)
        yield from page.entries
        cursor = page.next_cursor
        if cursor is None:
            return


def _unequal(what: str, counted: Mapping[Any, int], kept: Mapping[Any, int]) -> list[str]:
    keys = sorted(counted.keys() | kept.keys(), key=str)
    return [
        f"{what} {key}: {counted.get(key, 0)} by recount, {kept.get(key, 0)} by the sums"
        for key in keys
        if counted.get(key, 0) != kept.get(key, 0)
    ]


def _spread(sums: Sums) -> Counter[tuple[Any, ...]]:
    spread: Counter[tuple[Any, ...]] = Counter()
    for key, count in sums.statistics.items():
        for span in SPANS:
            spread[(span, *key._replace(minute=key.minute // span * span))] += count
    return spread


def _kept_statistics(store: JobHistoryStore) -> Mapping[Any, int]:
    if isinstance(store, MemoryJobHistoryStore):
        return _spread(store._sums)
    table = job_statistics.c
    key = (table.span, table.minute, table.task, table.queue, table.measure, table.bucket)
    return _summed(store, key, job_statistics.c["count"])


def _kept_groups(store: JobHistoryStore) -> Mapping[Any, int]:
    if isinstance(store, MemoryJobHistoryStore):
        return {fingerprint: tally.count for fingerprint, tally in store._sums.failures.items()}
    kept = _summed(store, (failure_groups.c.fingerprint,), failure_groups.c["count"])
    return {fingerprint: count for (fingerprint,), count in kept.items()}


def _summed(store: Any, key: tuple[Any, ...], count: Any) -> dict[tuple[Any, ...], int]:
    assert isinstance(store, SqlJobHistoryStore)
    with store._database.reading() as connection:
        rows = connection.execute(select(*key, func.sum(count)).group_by(*key))
        return {tuple(row): int(total) for *row, total in rows}
