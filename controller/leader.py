"""The one loop that finishes what callers began: open cancels, the deny set, lost jobs; and that removes old ones.

Any number of controllers may run it; the lease in the ledger lets one work. Without a leader jobs still run and are
recorded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from ..errors import BrokerUnavailable, ExportFailed, HistoryUnavailable, JobledgerError
from ..history.ids import new_id
from ..history.job_history_store import JobHistoryStore, LeaseHold
from .queue_execution_controller import QueueExecutionController
from .recovery import Recovery
from .retention import RetentionDuty

logger = logging.getLogger("jobledger.leader")

LEASE_NAME: Final = "leader"
#: Seconds that a leader which stops without a word keeps the others waiting.
LEASE_SECONDS: Final = 15.0
_INTERVAL: Final = 1.0
_TIDY_INTERVAL: Final = 10.0


class Leader:
    """Runs the loop while it holds the lease."""

    def __init__(self, controller: QueueExecutionController, store: JobHistoryStore, recovery: Recovery) -> None:
        self._controller = controller
        self._store = store
        self._recovery = recovery
        self._retention = RetentionDuty(store, controller.settings)
        self._holder = new_id()
        self._tidy_due = 0.0
        self._trouble: str | None = None

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then give the lease back; an outage is logged once and waited out."""
        while not stop.is_set():
            self.work_once()
            stop.wait(_INTERVAL)
        try:
            self._retention.give_up()
            self._store.release_lease(LEASE_NAME, self._holder)
        except HistoryUnavailable as error:
            logger.warning("The leader's lease could not be given back: %s", error)

    def work_once(self) -> bool:
        """Do one round if this is the leader; return whether it is."""
        lease = self._take_lease()
        if lease is None:
            self._retention.give_up()
            return False
        duties: list[Callable[[LeaseHold], object]] = [
            self._tidy_broker,
            self._controller.finish_cancels,
            self._recover,
            self._remove_old_jobs,
            self._index_for_search,
        ]
        results = [self._do(duty, lease) for duty in duties]
        if all(results):
            self._trouble = None
        return True

    def _take_lease(self) -> LeaseHold | None:
        try:
            fence = self._store.acquire_lease(LEASE_NAME, self._holder, LEASE_SECONDS)
        except HistoryUnavailable as error:
            self._complain(error)
            return None
        return None if fence is None else LeaseHold(name=LEASE_NAME, fence=fence)

    def _do(self, duty: Callable[[LeaseHold], object], lease: LeaseHold) -> bool:
        try:
            duty(lease)
        except (HistoryUnavailable, BrokerUnavailable, ExportFailed) as error:
            self._complain(error)
            return False
        except Exception:
            # One duty's defect must not end the others, nor this leader.
            logger.exception("The leader's duty %s failed", getattr(duty, "__name__", duty))
            return False
        return True

    def _tidy_broker(self, _: LeaseHold) -> None:
        if time.monotonic() >= self._tidy_due:
            self._controller.tidy_broker()
            self._tidy_due = time.monotonic() + _TIDY_INTERVAL

    def _index_for_search(self, _: LeaseHold) -> None:
        """What no agent has come to: also jobs that were only submitted yet."""
        deadline = time.monotonic() + _INTERVAL / 2
        while self._store.index_for_search() and time.monotonic() < deadline:
            pass

    def _recover(self, lease: LeaseHold) -> None:
        for verdict in self._recovery.recover(lease):
            logger.warning("Job %s is %s: %s", verdict.job_id, verdict.status, verdict.evidence)

    def _remove_old_jobs(self, _: LeaseHold) -> None:
        self._retention.work()

    def _complain(self, error: JobledgerError) -> None:
        if self._trouble != str(error):
            logger.error("The leader cannot work: %s", error)
        self._trouble = str(error)
