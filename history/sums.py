"""What is counted over all jobs, kept beside them so that no page ever counts rows.

Every count is a sum of what each job's entry contributes to it. A batch adds, for each entry that it changes, what
the new entry contributes and takes away what the old one did: so late facts, late ends and corrections need no
rule of their own, and the sums always equal a recount.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from math import log2
from typing import Final, NamedTuple

import msgspec

from .failure_group import FailureGroup, failure_group_of
from .job import JobHistoryEntry, JobStatus

#: Buckets for each doubling of a duration: a percentile is right within 9 %.
_BUCKETS_PER_DOUBLING: Final = 4
_SHORTEST: Final = 0.001

#: A ledger keeps each count for its minute, its hour and its day (UTC), so that no range is read minute by minute.
SPANS: Final = (1, 60, 1_440)


class Measure(StrEnum):
    """What a minute's statistics count; the durations are histograms."""

    SUBMITTED = "submitted"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: Seconds from the submission to the first start, counted in the minute of the start.
    WAITED = "waited"
    #: Seconds that the deciding run took, counted in the minute of the end.
    RAN = "ran"

    # As key of a count it is hashed many times for each job, and an enum's own hash is slow.
    __hash__ = str.__hash__


#: The measures without buckets.
NUMBERS: Final = (Measure.SUBMITTED, Measure.COMPLETED, Measure.FAILED, Measure.CANCELLED)

_ENDS: Final = {
    JobStatus.COMPLETED: Measure.COMPLETED,
    JobStatus.FAILED: Measure.FAILED,
    JobStatus.CANCELLED: Measure.CANCELLED,
}

_FAILED: Final = JobStatus.FAILED


class Tally(StrEnum):
    """What is counted over all jobs apart from their statuses."""

    #: Ends that came after a job had one already.
    LATE_ENDS = "late_ends"
    #: Starts of an attempt that another run had started before.
    DUPLICATE_RUNS = "duplicate_runs"
    #: Events of jobs that retention had removed before; they were dropped.
    EVENTS_AFTER_REMOVAL = "events_after_removal"


class StatisticKey(NamedTuple):
    """One count of one minute; empty names stand for what nobody said."""

    #: Whole minutes since 1970, UTC.
    minute: int
    task: str
    queue: str
    measure: Measure
    #: Of a duration, see ``bucket_of``; else 0.
    bucket: int


class FailureTally(msgspec.Struct):
    """What a batch adds to one failure group."""

    group: FailureGroup
    count: int
    first_seen_at: datetime
    last_seen_at: datetime
    example_job_id: str


class Sums:
    """What a batch adds to each count; most of it is small, all of it can be negative."""

    def __init__(self) -> None:
        self.totals: Counter[JobStatus | Tally] = Counter()
        self.statistics: Counter[StatisticKey] = Counter()
        self.failures: dict[str, FailureTally] = {}

    def replace(self, old: JobHistoryEntry | None, new: JobHistoryEntry) -> None:
        """Count ``new`` instead of ``old``, which is ``None`` for a job that nobody has counted yet."""
        self.totals[new.status] += 1
        added = _statistics(new)
        if old is not None:
            self.totals[old.status] -= 1
            gone = _statistics(old)
            if gone != added:
                self._count_statistics(gone, -1)
                self._count_statistics(added, 1)
        else:
            self._count_statistics(added, 1)
        if new.status is _FAILED or (old is not None and old.status is _FAILED):
            self._regroup(old, new)

    def _count_statistics(self, keys: Iterable[StatisticKey], count: int) -> None:
        for key in keys:
            self.statistics[key] += count

    def remove(self, entry: JobHistoryEntry) -> None:
        """Count a job no longer that retention removes; the statistics of its minutes stay true."""
        self.totals[entry.status] -= 1
        group = failure_group_of(entry)
        if group is not None:
            self._count_failure(entry, group, -1)

    def add(self, more: Sums) -> None:
        """Add what another batch counted."""
        self.totals.update(more.totals)
        self.statistics.update(more.statistics)
        for tally in more.failures.values():
            self._add_failures(tally)

    def _regroup(self, old: JobHistoryEntry | None, new: JobHistoryEntry) -> None:
        before = failure_group_of(old) if old else None
        after = failure_group_of(new)
        if before == after:
            return
        if old is not None and before is not None:
            self._count_failure(old, before, -1)
        if after is not None:
            self._count_failure(new, after, 1)

    def _count_failure(self, entry: JobHistoryEntry, group: FailureGroup, count: int) -> None:
        at = entry.completed_at or entry.created_at
        self._add_failures(FailureTally(group, count, at, at, entry.job_id))

    def _add_failures(self, more: FailureTally) -> None:
        known = self.failures.get(more.group.fingerprint)
        if known is None:
            self.failures[more.group.fingerprint] = msgspec.structs.replace(more)
            return
        known.count += more.count
        known.first_seen_at = min(known.first_seen_at, more.first_seen_at)
        if more.last_seen_at >= known.last_seen_at:
            known.last_seen_at, known.example_job_id = more.last_seen_at, more.example_job_id


def bucket_of(seconds: float) -> int:
    """Return the bucket of a duration: 0 below a millisecond, then four for each doubling."""
    return 0 if seconds < _SHORTEST else 1 + int(_BUCKETS_PER_DOUBLING * log2(seconds / _SHORTEST))


def middle_of(bucket: int) -> float:
    """Return the duration, in seconds, that stands for all of a bucket: its geometric middle."""
    return 0.0 if bucket == 0 else _SHORTEST * float(2.0 ** ((bucket - 0.5) / _BUCKETS_PER_DOUBLING))


def minute_of(moment: datetime) -> int:
    """Return the minute of a moment, in whole minutes since 1970, UTC."""
    return int(moment.timestamp() // 60)


def _statistics(entry: JobHistoryEntry) -> list[StatisticKey]:
    facts = entry.facts
    task, queue = (facts.task, facts.queue or "") if facts is not None else ("", "")
    keys = [StatisticKey(minute_of(entry.created_at), task, queue, Measure.SUBMITTED, 0)]
    if entry.started_at is not None:
        waited = (entry.started_at - entry.created_at).total_seconds()
        keys.append(StatisticKey(minute_of(entry.started_at), task, queue, Measure.WAITED, bucket_of(waited)))
    end = entry.effective_end
    if end is not None:
        ended = minute_of(end.at)
        keys.append(StatisticKey(ended, task, queue, _ENDS[end.status], 0))
        if end.runtime is not None:
            keys.append(StatisticKey(ended, task, queue, Measure.RAN, bucket_of(end.runtime)))
    return keys
