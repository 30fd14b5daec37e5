"""Removes old jobs as the settings say, or as a person asks for; one process at a time."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from ..errors import HistoryUnavailable, RetentionBusy
from ..history.archive import JobArchive
from ..history.event import now
from ..history.ids import new_id
from ..history.job import TERMINAL_STATUSES, JobStatus
from ..history.job_history_store import JobHistoryStore, LeaseHold
from ..history.retention import KeptJobs, Removal, RetentionPolicy
from ..settings import Settings

logger = logging.getLogger("jobledger.retention")

#: Who removes jobs holds this lease, be it the leader or a person's command: two at once would remove too many.
LEASE_NAME: Final = "retention"
_LEASE_SECONDS: Final = 60.0
_RENEW_AFTER: Final = 20.0
_INTERVAL: Final = 3_600.0
_RETRY_INTERVAL: Final = 300.0
#: Seconds of each of the leader's rounds that are left to the removal; its other duties must not wait.
_SLICE: Final = 0.3
#: The longest pause between two transactions, in seconds.
_LONGEST_PAUSE: Final = 0.5

Progress = Callable[[Counter[JobStatus]], None]


def policy_of(settings: Settings) -> RetentionPolicy:
    """Return how long the settings want ended jobs to be kept."""
    return RetentionPolicy(
        ages=_ages(settings),
        numbers=tuple(_numbers(settings)),
        cancels=timedelta(seconds=settings.tombstone_ttl),
        rest=timedelta(days=settings.retention_days) if settings.retention_days else None,
    )


def _ages(settings: Settings) -> dict[JobStatus, timedelta]:
    days = dict.fromkeys(TERMINAL_STATUSES, settings.retention_days)
    days |= {JobStatus(status): limit for status, limit in settings.retention_days_by_status.items()}
    return {status: timedelta(days=limit) for status, limit in days.items() if limit}


def _numbers(settings: Settings) -> Iterator[KeptJobs]:
    apart = {JobStatus(status): limit for status, limit in settings.retention_jobs_by_status.items()}
    yield from (KeptJobs((status,), limit) for status, limit in apart.items() if limit)
    together = tuple(sorted(TERMINAL_STATUSES - apart.keys()))
    if settings.retention_jobs and together:
        yield KeptJobs(together, settings.retention_jobs)


def policy_for(
    settings: Settings, older_than: timedelta | None, keep: int | None, statuses: Collection[JobStatus]
) -> RetentionPolicy:
    """Return the policy of somebody who says what is too old, how many jobs stay, or both; of all statuses unless some.

    Only jobs go by it.
    """
    wanted = tuple(sorted(TERMINAL_STATUSES & set(statuses) if statuses else TERMINAL_STATUSES))
    return RetentionPolicy(
        ages={} if older_than is None else dict.fromkeys(wanted, older_than),
        numbers=() if keep is None else (KeptJobs(wanted, keep),),
        cancels=timedelta(seconds=settings.tombstone_ttl),
    )


def archive_path(settings: Settings) -> Path | None:
    """Return the file to which today's removed jobs are exported, if the settings want it."""
    directory = settings.retention_export
    return directory / f"removed-jobs-{now():%Y-%m-%d}.jsonl" if directory else None


def prune(
    store: JobHistoryStore, policy: RetentionPolicy, archive: Path | None = None, progress: Progress | None = None
) -> Counter[JobStatus]:
    """Remove what the policy lets go, all of it; return how many jobs of each status that were.

    ``progress`` is told so after each transaction. Each batch is in the archive, on the disk, before it is removed.

    Raises:
        RetentionBusy: while another process removes jobs.
        ExportFailed: when the archive cannot be written; what is not in it was not removed.
    """
    with ExitStack() as opened:
        lease = opened.enter_context(_leased(store))
        removal = Removal(store, policy, now(), opened.enter_context(JobArchive(archive)) if archive else None)
        while _step(removal, lease()):
            if progress is not None:
                progress(removal.removed)
    return removal.removed


@contextmanager
def _leased(store: JobHistoryStore) -> Iterator[Callable[[], LeaseHold]]:
    holder = new_id()
    renewed_at = time.monotonic()
    hold = _take_lease(store, holder)

    def lease() -> LeaseHold:
        nonlocal renewed_at, hold
        if time.monotonic() - renewed_at > _RENEW_AFTER:
            hold, renewed_at = _take_lease(store, holder), time.monotonic()
        return hold

    try:
        yield lease
    finally:
        store.release_lease(LEASE_NAME, holder)


def _take_lease(store: JobHistoryStore, holder: str) -> LeaseHold:
    fence = store.acquire_lease(LEASE_NAME, holder, _LEASE_SECONDS)
    if fence is None:
        raise RetentionBusy
    return LeaseHold(name=LEASE_NAME, fence=fence)


def _step(removal: Removal, lease: LeaseHold) -> bool:
    """Remove a batch, and then leave the database to the recorders for as long as that took."""
    started = time.monotonic()
    more = removal.step(lease)
    time.sleep(min(_LONGEST_PAUSE, time.monotonic() - started))
    return more


class RetentionDuty:
    """The leader's part: at its start and every hour, a little in each of its rounds."""

    def __init__(self, store: JobHistoryStore, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._holder = new_id()
        self._due = 0.0
        self._removal: Removal | None = None
        self._archive: JobArchive | None = None
        self._holds_lease = False

    def work(self) -> None:
        """Remove for a moment what is too old, if it is time to.

        Raises:
            ExportFailed, HistoryUnavailable: it will be tried again some minutes later.
        """
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _RETRY_INTERVAL
        try:
            more = self._work_for_a_moment()
        except RetentionBusy:
            self.give_up()
            return
        except BaseException:
            self.give_up()
            raise
        if more:
            self._due = 0.0
        else:
            self._report()
            self.give_up()
            self._due = time.monotonic() + _INTERVAL

    def give_up(self) -> None:
        """Leave the rest to the next time, or to the next leader."""
        self._removal = None
        archive, self._archive = self._archive, None
        if archive is not None:
            archive.close()
        if self._holds_lease:
            self._holds_lease = False
            # One that cannot be given back runs out by itself.
            with contextlib.suppress(HistoryUnavailable):
                self._store.release_lease(LEASE_NAME, self._holder)

    def _work_for_a_moment(self) -> bool:
        lease = _take_lease(self._store, self._holder)
        self._holds_lease = True
        removal = self._removal = self._removal or self._begin()
        pause_at = time.monotonic() + _SLICE
        while more := _step(removal, lease):
            if time.monotonic() >= pause_at:
                break
        return more

    def _begin(self) -> Removal:
        path = archive_path(self._settings)
        self._archive = JobArchive(path) if path else None
        return Removal(self._store, policy_of(self._settings), now(), self._archive)

    def _report(self) -> None:
        if self._removal is not None and self._removal.removed:
            counts = ", ".join(f"{count} {status}" for status, count in sorted(self._removal.removed.items()))
            logger.info("Removed old jobs: %s", counts)
