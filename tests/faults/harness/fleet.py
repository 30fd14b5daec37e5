"""Keeps the workers and the leader alive: whoever dies is started again."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from collections import Counter

from .damage import Damage
from .site import Site, Worker, clock_ahead

_STOP_TIMEOUT = 60.0


class Fleet:
    """Three workers: one on the small disk, one beside it with a wrong clock, one in the other home."""

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._chance = random.Random(f"fleet of {seed}")
        #: By how many hours the second worker's clock is wrong; the next one's is wrong the other way.
        self._hours = 1
        self.restarts: Counter[str] = Counter()
        self.skews: Counter[str] = Counter()
        self.damage = Damage()
        self.workers = [self._start(place) for place in range(3)]
        self.leader = site.start_leader()
        self._due: dict[int, float] = {}

    def step(self) -> None:
        """Start again, after a moment, what has died."""
        for place, worker in enumerate(self.workers):
            if worker.process.poll() is not None:
                self.damage.note_dead_worker(worker.name)
                due = self._due.setdefault(place, time.monotonic() + self._chance.uniform(0, 2))
                if time.monotonic() >= due:
                    del self._due[place]
                    self.workers[place] = self._start(place)
                    self.restarts["worker"] += 1
        if self.leader.poll() is not None:
            self.leader = self._site.start_leader()
            self.restarts["leader"] += 1

    def stop_workers(self) -> None:
        """Let every worker finish its jobs and say goodbye."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGTERM)
        for worker in self.workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(_STOP_TIMEOUT)

    def stop_leader(self) -> None:
        """Let the leader give its lease back."""
        self.leader.send_signal(signal.SIGTERM)
        self.leader.wait(_STOP_TIMEOUT)

    def _start(self, place: int) -> Worker:
        home = 1 if place == 2 else 0
        worker = self._site.start_worker(self._site.homes[home], self._wrong_clock() if place == 1 else {})
        if home == 0:
            self.damage.on_small_disk.add(worker.name)
        return worker

    def _wrong_clock(self) -> dict[str, str]:
        hours, self._hours = self._hours, -self._hours
        clock = clock_ahead(hours)
        self.skews[f"clock {hours:+d} h" if clock else "wrong clock: not possible"] += 1
        return clock or {}
