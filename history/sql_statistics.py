"""The statistics in SQL: read for a range of time, and pruned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, delete, func, select

from .event import now
from .recordable import is_text
from .schema import job_statistics
from .statistics import KEPT, GroupKey, Slice, Statistics, StatisticsRange, StepKey, statistics_of
from .sums import NUMBERS, SPANS, Measure, minute_of

_MEASURES: Final = [measure.value for measure in Measure]
_NUMBERS: Final = [measure.value for measure in NUMBERS]
#: What one call prunes of each span, counted in its own units: an hour, some days, a month.
_PRUNED_AT_ONCE: Final = {1: 60, 60: 100, 1_440: 31}

_counts = job_statistics.c


def statistics_in(connection: Connection, wanted: StatisticsRange, task: str | None, queue: str | None) -> Statistics:
    """Return what a range's counts say; it reads these counts and no job."""
    if not all(is_text(name) for name in (task, queue) if name is not None):
        return statistics_of(wanted, {}, {})
    chosen = [column == name for column, name in ((_counts.task, task), (_counts.queue, queue)) if name is not None]
    groups: Counter[GroupKey] = Counter()
    for part in wanted.slices():
        groups.update(dict(_rows(connection, _by_group(part, chosen))))
    whole = Slice(wanted.step, wanted.start, wanted.end)
    steps: dict[StepKey, int] = dict(_rows(connection, _by_step(whole, chosen)))
    return statistics_of(wanted, groups, steps)


def _rows(connection: Connection, query: Select[Any]) -> Iterator[tuple[Any, int]]:
    return ((tuple(key), int(count)) for *key, count in connection.execute(query))


def _by_group(part: Slice, chosen: list[ColumnElement[bool]]) -> Select[Any]:
    return _summed(part, _MEASURES, chosen, _counts.task, _counts.queue, _counts.measure, _counts.bucket)


def _by_step(part: Slice, chosen: list[ColumnElement[bool]]) -> Select[Any]:
    return _summed(part, _NUMBERS, chosen, _counts.minute, _counts.measure)


def _summed(
    part: Slice, measures: list[str], chosen: list[ColumnElement[bool]], *key: ColumnElement[Any]
) -> Select[Any]:
    # Also all measures by name: so the range of minutes is one of the primary key's, measure by measure.
    within = (
        _counts.span == part.span,
        _counts.measure.in_(measures),
        _counts.minute >= part.start,
        _counts.minute < part.end,
    )
    return select(*key, func.sum(_counts["count"])).where(*within, *chosen).group_by(*key)


def prune_statistics(connection: Connection, before: datetime | None) -> int:
    """Remove old counts, and return how many: of days ``before`` a moment, of hours and minutes after ``KEPT``.

    One call removes a bounded part, the oldest first, inside the caller's transaction; repeat it until it says 0.
    """
    limits = {span: now() - KEPT[span] if span in KEPT else before for span in SPANS}
    return sum(_prune(connection, span, minute_of(limit)) for span, limit in limits.items() if limit is not None)


def _prune(connection: Connection, span: int, limit: int) -> int:
    oldest = min((minute for minute in _oldest(connection, span) if minute is not None), default=limit)
    end = min(limit // span * span, oldest + span * _PRUNED_AT_ONCE[span])
    of_span = (_counts.span == span, _counts.measure.in_(_MEASURES))
    return connection.execute(delete(job_statistics).where(*of_span, _counts.minute < end)).rowcount


def _oldest(connection: Connection, span: int) -> Iterator[int | None]:
    for measure in _MEASURES:
        oldest = select(_counts.minute).where(_counts.span == span, _counts.measure == measure)
        yield connection.scalar(oldest.order_by(_counts.minute).limit(1))
