"""What the faults of a run did, and when, on the monotonic clock: what the comparison may excuse, and nothing else."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import NamedTuple


class Window(NamedTuple):
    """From when to when something was away."""

    start: float
    end: float

    def overlaps(self, start: float, end: float) -> bool:
        """Whether it lasted during some of that time."""
        return start <= self.end and end >= self.start


class Damage:
    """The record of a run's faults."""

    def __init__(self) -> None:
        #: When the small disk was full.
        self.disk_windows: list[Window] = []
        #: The workers that write to it.
        self.on_small_disk: set[str] = set()
        self._killed: dict[int, list[float]] = defaultdict(list)
        self._dead_workers: dict[str, float] = {}

    def note_kill(self, pid: int) -> None:
        """A process is killed now."""
        self._killed[pid].append(time.monotonic())

    def note_dead_worker(self, name: str) -> None:
        """A worker's main process is killed now, or was found dead: Celery gives up by itself too."""
        self._dead_workers.setdefault(name, time.monotonic())

    def killed_within(self, pid: int, start: float, end: float) -> bool:
        """Whether a process of that number was killed in that time."""
        return any(start <= moment <= end for moment in self._killed.get(pid, ()))

    def worker_died(self, name: str | None) -> bool:
        """Whether a worker's main process was killed."""
        return name in self._dead_workers

    def disk_was_full(self, start: float, end: float) -> bool:
        """Whether the disk was full during some of that time."""
        return any(window.overlaps(start, end) for window in self.disk_windows)

    def silenced(self, pid: int, worker: str | None) -> bool:
        """Whether a process, or its worker, was killed while the disk was full: its count of drops died with it."""
        deaths = [*self._killed.get(pid, ())]
        if worker in self._dead_workers:
            deaths.append(self._dead_workers[worker])
        return any(self.disk_was_full(death, death) for death in deaths)
