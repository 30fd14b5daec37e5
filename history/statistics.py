"""What a ledger's jobs did in a range of time: how many, how long they waited, how long they ran."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any, Final, NamedTuple

import msgspec

from .event import now
from .job import JobStatus
from .sums import SPANS, Measure, Tally, middle_of, minute_of

#: How long a ledger keeps the counts of minutes and of hours; those of days it keeps as long as its jobs.
KEPT: Final = {1: timedelta(days=2), 60: timedelta(days=35)}
#: The longest range that is told in minutes, and in hours: about 200 points.
_TOLD_IN: Final = {1: timedelta(hours=3, minutes=1), 60: timedelta(days=8, hours=1)}
LONGEST_RANGE: Final = timedelta(days=400)
#: Tasks, and queues, that are told one by one, those with most jobs first; the total counts all.
GROUP_LIMIT: Final = 500

_MOMENT: Final = timedelta(microseconds=1)

#: A count's task, queue, measure and bucket.
GroupKey = tuple[str, str, str, int]
#: A count's minute (the first of its step) and measure.
StepKey = tuple[int, str]


class LedgerCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs a ledger holds, by status, and what else it counted since it was made."""

    statuses: dict[JobStatus, int]
    tallies: dict[Tally, int]


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """How long something took, in seconds: half, 95 and 99 of 100 took no longer; right within 9 %."""

    count: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs were sent, and how they ended, in one range of time; each counts in the minute of its happening."""

    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def failed_share(self) -> float | None:
        """Which part of the ends were failures; ``None`` when nothing ended."""
        ends = self.completed + self.failed + self.cancelled
        return self.failed / ends if ends else None


class Activity(Throughput, frozen=True, kw_only=True):
    """What jobs did in one range of time."""

    #: From the submission to the first start, of those that started.
    waited: Durations = Durations()
    #: What the deciding run took, of those that ended.
    ran: Durations = Durations()


class NamedActivity(Activity, frozen=True, kw_only=True):
    """What the jobs of one task, or one queue, did; the name is empty where nobody said it."""

    name: str


class Step(Throughput, frozen=True, kw_only=True):
    """The throughput in one step of the range."""

    at: datetime


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What jobs did between two moments, which are whole steps: minutes, hours or days (UTC)."""

    since: datetime
    until: datetime
    #: Seconds of a step.
    step: int
    total: Activity
    by_task: tuple[NamedActivity, ...]
    by_queue: tuple[NamedActivity, ...]
    #: Every step of the range, also those without any job.
    steps: tuple[Step, ...]


class Slice(NamedTuple):
    """Minutes that are read by counts of one span; both are whole ones of it, ``end`` is not part of it."""

    span: int
    start: int
    end: int


class StatisticsRange(NamedTuple):
    """Whole steps of time: minutes since 1970 from ``start`` to before ``end``, and the minutes of a step."""

    start: int
    end: int
    step: int

    def slices(self) -> Iterator[Slice]:
        """Return the fewest counts that cover the range: days in its middle, hours and minutes at its edges."""
        return _cover(self.start, self.end, [span for span in SPANS if span >= self.step])


def range_between(since: datetime, until: datetime) -> StatisticsRange:
    """Return the whole steps that hold a range of time, as fine as its length and its age allow.

    Raises:
        ValueError: when it does not end after it began.
    """
    if until <= since:
        raise ValueError("A range of time must end after it begins.")
    since = max(since, until - LONGEST_RANGE)
    step = next((span for span, longest in _TOLD_IN.items() if _is_told_in(span, longest, since, until)), SPANS[-1])
    first, last = minute_of(since) // step, minute_of(until - _MOMENT) // step
    return StatisticsRange(first * step, (last + 1) * step, step)


def _is_told_in(span: int, longest: timedelta, since: datetime, until: datetime) -> bool:
    return until - since <= longest and since >= now() - KEPT[span]


def _cover(start: int, end: int, spans: list[int]) -> Iterator[Slice]:
    if start >= end:
        return
    *finer, span = spans
    first, last = -(-start // span) * span, end // span * span
    if first >= last:
        yield from _cover(start, end, finer)
        return
    yield from _cover(start, first, finer)
    yield Slice(span, first, last)
    yield from _cover(last, end, finer)


def statistics_of(wanted: StatisticsRange, groups: Mapping[GroupKey, int], steps: Mapping[StepKey, int]) -> Statistics:
    """Return the statistics that the counts of a range say."""
    return Statistics(
        since=_moment(wanted.start),
        until=_moment(wanted.end),
        step=wanted.step * 60,
        total=Activity(**_fields(_sorted_out(groups, lambda _key: "")[""])),
        by_task=_named(_sorted_out(groups, lambda key: key[0])),
        by_queue=_named(_sorted_out(groups, lambda key: key[1])),
        steps=_steps(wanted, steps),
    )


class _Counts:
    """The counts of one group: by measure, and for the durations by bucket."""

    def __init__(self) -> None:
        self.of: dict[str, Counter[int]] = defaultdict(Counter)

    def number(self, measure: Measure) -> int:
        # Late corrections can reach minutes whose first counts are pruned.
        return max(0, self.of[measure][0])


def _sorted_out(groups: Mapping[GroupKey, int], name_of: Callable[[GroupKey], str]) -> dict[str, _Counts]:
    counts: dict[str, _Counts] = defaultdict(_Counts)
    for key, count in groups.items():
        counts[name_of(key)].of[key[2]][key[3]] += count
    return counts


def _named(groups: Mapping[str, _Counts]) -> tuple[NamedActivity, ...]:
    activities = [NamedActivity(name=name, **_fields(counts)) for name, counts in groups.items()]
    activities.sort(key=lambda group: (-group.completed - group.failed - group.cancelled, -group.submitted, group.name))
    return tuple(activities[:GROUP_LIMIT])


def _steps(wanted: StatisticsRange, steps: Mapping[StepKey, int]) -> tuple[Step, ...]:
    counts: dict[int, _Counts] = defaultdict(_Counts)
    for (minute, measure), count in steps.items():
        counts[minute].of[measure][0] += count
    minutes = range(wanted.start, wanted.end, wanted.step)
    return tuple(Step(at=_moment(minute), **_numbers(counts[minute])) for minute in minutes)


def _fields(counts: _Counts) -> dict[str, Any]:
    waited, ran = (_durations(counts.of[measure]) for measure in (Measure.WAITED, Measure.RAN))
    return {**_numbers(counts), "waited": waited, "ran": ran}


def _numbers(counts: _Counts) -> dict[str, int]:
    return {
        "submitted": counts.number(Measure.SUBMITTED),
        "completed": counts.number(Measure.COMPLETED),
        "failed": counts.number(Measure.FAILED),
        "cancelled": counts.number(Measure.CANCELLED),
    }


def _durations(histogram: Mapping[int, int]) -> Durations:
    counted = {bucket: histogram[bucket] for bucket in sorted(histogram) if histogram[bucket] > 0}
    if not counted:
        return Durations()
    reached = list(zip(accumulate(counted.values()), counted, strict=True))
    total = reached[-1][0]
    return Durations(
        count=total,
        p50=_percentile(reached, 0.50 * total),
        p95=_percentile(reached, 0.95 * total),
        p99=_percentile(reached, 0.99 * total),
    )


def _percentile(reached: list[tuple[int, int]], rank: float) -> float:
    bucket = next(bucket for count, bucket in reached if count >= rank)
    return float(f"{middle_of(bucket):.3g}")


def _moment(minute: int) -> datetime:
    return datetime.fromtimestamp(minute * 60, UTC)


def counts_of(sums: Mapping[str, int]) -> LedgerCounts:
    """Return the counts that the totals' names and sums say; what was never counted is 0."""
    return LedgerCounts(
        statuses={status: sums.get(status, 0) for status in JobStatus},
        tallies={tally: sums.get(tally, 0) for tally in Tally},
    )
