"""How long ended jobs are kept, and the walk over those that may go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec

from ..errors import RetentionBusy
from .archive import JobArchive
from .job import JobHistoryEntry, JobStatus
from .job_cursor import JobCursor
from .job_history_store import JobHistoryStore, LeaseHold

#: Jobs that one transaction removes at most: a few hundredths of a second, so that no recorder waits for long.
BATCH: Final = 200


class KeptJobs(msgspec.Struct, frozen=True):
    """How many jobs are kept, those that were submitted last, of some statuses counted together."""

    statuses: tuple[JobStatus, ...]
    count: int


class RetentionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How long ended jobs are kept: one goes as soon as its age or its number says so."""

    #: How long after its end a job is kept, for each status; a missing one is kept however old it is.
    ages: Mapping[JobStatus, timedelta] = {}
    #: How many are kept; a status is in one of them at most.
    numbers: tuple[KeptJobs, ...] = ()
    #: How long a cancelled job is kept whatever the rest says: the broker's deny set is made again from its intent.
    cancels: timedelta = timedelta(days=7)
    #: How long statistics, and what is known of ended nodes and journals, are kept; unset: for ever.
    rest: timedelta | None = None


class Share(msgspec.Struct):
    """How many jobs of one status go or went, and when the oldest and the newest of them were submitted."""

    jobs: int
    oldest: datetime
    newest: datetime


class RetentionWalk:
    """Goes once over the ended jobs that may have to go, oldest first; reads a bounded number of them at a time.

    Counts how many are too many once, at its start: what ends meanwhile is left to the next walk.
    """

    def __init__(self, store: JobHistoryStore, policy: RetentionPolicy, moment: datetime) -> None:
        self._store = store
        self._policy = policy
        self._moment = moment
        self._place: JobCursor | None = None
        counts = store.counts().statuses
        self._surplus = {
            kept: sum(counts.get(status, 0) for status in kept.statuses) - kept.count for kept in policy.numbers
        }

    def next_jobs(self) -> list[JobHistoryEntry] | None:
        """Return the next jobs that go, perhaps none; ``None`` at the walk's end."""
        looked_at = self._store.list_ended_jobs(self._submitted_before(), self._place, BATCH)
        if not looked_at:
            return None
        self._place = JobCursor(looked_at[-1].created_at, looked_at[-1].job_id)
        going = [entry for entry in looked_at if self._goes(entry)]
        needed = self._store.jobs_with_active_retries(going)
        return [entry for entry in going if entry.job_id not in needed]

    def _submitted_before(self) -> dict[JobStatus, datetime | None]:
        too_many = {status for kept, surplus in self._surplus.items() if surplus > 0 for status in kept.statuses}
        by_age = {status: self._moment - age for status, age in self._policy.ages.items()}
        return {status: None if status in too_many else by_age[status] for status in too_many | by_age.keys()}

    def _goes(self, entry: JobHistoryEntry) -> bool:
        too_many = self._is_one_too_many(entry.status)
        return (too_many or self._is_too_old(entry)) and not self._was_cancelled_lately(entry)

    def _is_one_too_many(self, status: JobStatus) -> bool:
        kept = next((kept for kept in self._surplus if status in kept.statuses), None)
        if kept is None or self._surplus[kept] <= 0:
            return False
        self._surplus[kept] -= 1
        return True

    def _is_too_old(self, entry: JobHistoryEntry) -> bool:
        age = self._policy.ages.get(entry.status)
        return age is not None and entry.completed_at is not None and entry.completed_at < self._moment - age

    def _was_cancelled_lately(self, entry: JobHistoryEntry) -> bool:
        requested_at = entry.cancel_requested_at
        return requested_at is not None and requested_at >= self._moment - self._policy.cancels


def survey(store: JobHistoryStore, policy: RetentionPolicy, moment: datetime) -> dict[JobStatus, Share]:
    """Return what would go now, for each status; changes nothing, and takes longer the more there is."""
    shares: dict[JobStatus, Share] = {}
    walk = RetentionWalk(store, policy, moment)
    while (going := walk.next_jobs()) is not None:
        for entry in going:
            _count(shares, entry)
    return shares


class Removal:
    """Removes what a policy lets go, batch after batch, each in a transaction of its own.

    With an archive each batch is in it, on the disk, before it is removed. The caller holds the lease, and decides
    when to go on.
    """

    def __init__(
        self, store: JobHistoryStore, policy: RetentionPolicy, moment: datetime, archive: JobArchive | None = None
    ) -> None:
        self._store = store
        self._archive = archive
        self._walk = RetentionWalk(store, policy, moment)
        self._rest_before = None if policy.rest is None else moment - policy.rest
        #: What was removed so far.
        self.removed: Counter[JobStatus] = Counter()

    def step(self, lease: LeaseHold) -> bool:
        """Do one step, with one transaction that writes at most; return whether there may be more to do.

        Raises:
            RetentionBusy: when somebody else has taken the lease.
            ExportFailed: when the batch could not be exported; it stays.
        """
        going = self._walk.next_jobs()
        if going is None:
            return self._remove_rest(lease)
        if going:
            self._remove(going, lease)
        return True

    def _remove(self, going: list[JobHistoryEntry], lease: LeaseHold) -> None:
        if self._archive is not None:
            self._archive.add(self._store, going)
        removed = self._store.remove_jobs(going, lease)
        if removed is None:
            raise RetentionBusy
        self.removed.update(entry.status for entry in going if entry.job_id in removed)

    def _remove_rest(self, lease: LeaseHold) -> bool:
        rows = self._store.remove_rest(self._rest_before, lease)
        if rows is None:
            raise RetentionBusy
        return rows > 0


def _count(shares: dict[JobStatus, Share], entry: JobHistoryEntry) -> None:
    share = shares.setdefault(entry.status, Share(0, entry.created_at, entry.created_at))
    share.jobs += 1
    share.oldest = min(share.oldest, entry.created_at)
    share.newest = max(share.newest, entry.created_at)
