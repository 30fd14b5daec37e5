"""A node's own memory of what it handed to its pool and of the runs whose end it recorded.

Celery forgets a running job when the connection drops, and then runs its second delivery; this map does not.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from typing import Any, Final, NamedTuple

from .run_board import RunBoard, RunSlot, RunState

#: Ended runs that are remembered, at most.
_REMEMBERED: Final = 200_000
#: Live runs from which on the ended ones among them are let go, for each holds its message.
_SWEEP_AT_LEAST: Final = 32


class RunKey(NamedTuple):
    """One attempt of one job."""

    job_id: str
    requeue: int
    retries: int


class Run:
    """One hand-over of an attempt to the pool."""

    def __init__(self, key: RunKey, run_id: str, request: Any, slot: RunSlot | None, grace: float | None) -> None:
        self.key = key
        self.run_id = run_id
        self.request = request
        self.slot = slot
        self.grace = grace
        #: Why the node killed its process; unset while it did not.
        self.killed: str | None = None

    @property
    def state(self) -> RunState:
        """Where the run stands; by Celery's own word where no slot was free for it."""
        if self.slot is not None:
            return self.slot.state
        return RunState.STARTED if self.request.time_start else RunState.HANDED_OVER

    @property
    def is_cancelled(self) -> bool:
        """Whether it was told to stop."""
        return self.slot is not None and self.slot.is_cancelled()


class Runs:
    """The map. Pools of threads call it from several threads at once."""

    def __init__(self, board: RunBoard, ttl: float) -> None:
        self._board = board
        self._ttl = ttl
        self._live: dict[RunKey, Run] = {}
        self._ended: OrderedDict[RunKey, float] = OrderedDict()
        self._lock = threading.RLock()
        self._sweep_at = _SWEEP_AT_LEAST

    def is_copy(self, key: RunKey, redelivered: bool) -> bool:
        """Whether a delivery is another copy of an attempt that runs here, or that ended here.

        After the end only a redelivered one is: an application may use an id of its own again, every night.
        """
        with self._lock:
            run = self._live.get(key)
            if run is not None and run.state is not RunState.ENDED:
                return True
            return redelivered and (run is not None or key in self._ended)

    def is_live(self, run: Run) -> bool:
        """Whether the run's end has not been seen yet."""
        return self._live.get(run.key) is run

    def is_in(self, run: Run, pid: int) -> bool:
        """Whether a run has not ended, and no other process than ``pid`` has it: only then may that be killed."""
        with self._lock:
            if not self.is_live(run):
                return False
            slot = run.slot
            # Without a slot nobody says where the run stands, and the wrong job might die.
            return slot is not None and slot.state in (RunState.HANDED_OVER, RunState.STARTED) and slot.pid in (0, pid)

    def of_job(self, job_id: str) -> Run | None:
        """Return the job's run, if one is live here."""
        with self._lock:
            self._sweep()
            return next((run for run in self._live.values() if run.key.job_id == job_id), None)

    def not_started(self, job_ids: Collection[str]) -> list[Run]:
        """Return the live runs of the jobs that no process has started."""
        with self._lock:
            runs = [run for run in self._live.values() if run.key.job_id in job_ids]
        return [run for run in runs if run.state is RunState.HANDED_OVER]

    def hand_over(self, key: RunKey, run_id: str, request: Any, grace: float | None) -> Run:
        """Remember a run that goes to the pool now."""
        with self._lock:
            self._release(key)
            if len(self._live) >= self._sweep_at:
                self._sweep()
                self._sweep_at = max(_SWEEP_AT_LEAST, 2 * len(self._live))
            run = self._live[key] = Run(key, run_id, request, self._board.take(), grace)
        return run

    def end(self, key: RunKey) -> Run | None:
        """Remember that a run's end was recorded."""
        with self._lock:
            run = self._release(key)
            if run is not None:
                self._ended[key] = time.monotonic()
                self._forget_old()
        return run

    def forget(self, key: RunKey) -> None:
        """Forget a run whose message goes back to the queue: its next delivery is no duplicate."""
        with self._lock:
            self._release(key)

    def _release(self, key: RunKey) -> Run | None:
        run = self._live.pop(key, None)
        if run is not None and run.slot is not None:
            self._board.give_back(run.slot)
            run.slot = None
        return run

    def _sweep(self) -> None:
        for run in [run for run in self._live.values() if run.state is RunState.ENDED]:
            self.end(run.key)

    def _forget_old(self) -> None:
        oldest_kept = time.monotonic() - self._ttl
        while self._ended:
            key, ended_at = next(iter(self._ended.items()))
            if len(self._ended) <= _REMEMBERED and ended_at >= oldest_kept:
                return
            del self._ended[key]
