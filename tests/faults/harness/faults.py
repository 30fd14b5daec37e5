"""The faults, and when each of them strikes: a schedule made from the seed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from .damage import Window
from .fleet import Fleet
from .site import Site, Worker


class Fault(StrEnum):
    """What can happen."""

    CHILD = "pool child killed"
    WORKER = "worker killed"
    AGENT = "agent killed"
    LEADER = "leader killed"
    LEDGER = "ledger away"
    BROKER = "broker restarted"
    BROKER_CRASH = "broker killed"
    CONNECTIONS = "connections to the broker cut"
    DISK = "disk full"


#: How often each strikes in the long form, over 2,000 jobs.
_TIMES = {
    Fault.CHILD: 16,
    Fault.WORKER: 8,
    Fault.AGENT: 8,
    Fault.LEADER: 2,
    Fault.LEDGER: 3,
    Fault.BROKER: 2,
    Fault.BROKER_CRASH: 2,
    Fault.CONNECTIONS: 3,
    Fault.DISK: 3,
}
_FULL_JOBS = 2_000
_OF_BROKER = (Fault.BROKER_CRASH, Fault.CONNECTIONS)
_DISK_SECONDS = 4.0
_BROKER_SECONDS = (0.2, 3.0)
#: Seconds by which a fault is put off whose victim is away already.
_LATER = 2.0


class Strike(NamedTuple):
    """One fault of the schedule; ``at`` is in seconds since the senders began."""

    at: float
    fault: Fault


def make_schedule(seed: int, jobs: int, seconds: float) -> list[Strike]:
    """Return the faults of a run; each kind's are spread over its time."""
    chance = random.Random(f"faults of {seed}")
    strikes = []
    for fault, times in _TIMES.items():
        count = max(1, round(times * jobs / _FULL_JOBS))
        part = seconds / count
        strikes += [Strike(part * (number + chance.uniform(0.1, 0.9)), fault) for number in range(count)]
    return sorted(strikes)


class Chaos:
    """Carries the schedule out; ``step`` is called all the time, and nothing in it waits for long."""

    def __init__(self, site: Site, fleet: Fleet, schedule: list[Strike], seed: int, outage: float) -> None:
        self._site = site
        self._fleet = fleet
        self._schedule = list(schedule)
        self._chance = random.Random(f"victims of {seed}")
        self._outage = outage
        self._began = time.monotonic()
        #: What ends an outage, and when.
        self._repairs: list[tuple[float, Callable[[], None]]] = []
        self._away: set[Fault] = set()
        self._disk_full_since: float | None = None
        self.counts: Counter[str] = Counter()
        self.damage = fleet.damage

    @property
    def is_over(self) -> bool:
        """Whether everything has struck and was repaired."""
        return not self._schedule and not self._repairs

    def step(self) -> None:
        """Repair what was away for long enough, then strike what is due."""
        now = time.monotonic()
        for repair in [repair for repair in self._repairs if repair[0] <= now]:
            self._repairs.remove(repair)
            repair[1]()
        if self._disk_full_since is not None:
            self._site.disk.fill()
        while self._schedule and self._began + self._schedule[0].at <= now:
            self._strike(self._schedule.pop(0).fault)

    def _strike(self, fault: Fault) -> None:
        outage = Fault.BROKER if fault in _OF_BROKER else fault
        if outage in self._away:
            self._schedule = sorted([*self._schedule, Strike(time.monotonic() - self._began + _LATER, fault)])
            return
        match fault:
            case Fault.CHILD:
                struck = self._kill_child()
            case Fault.WORKER:
                struck = self._kill_worker()
            case Fault.AGENT:
                struck = self._kill_one_of(self._site.agents())
            case Fault.LEADER:
                struck = self._kill_one_of([self._fleet.leader.pid])
            case Fault.LEDGER:
                struck = self._take_ledger()
            case Fault.BROKER:
                struck = self._stop_broker(signal.SIGTERM)
            case Fault.BROKER_CRASH:
                struck = self._stop_broker(signal.SIGKILL)
            case Fault.CONNECTIONS:
                struck = self._site.broker.cut_connections()
            case Fault.DISK:
                struck = self._fill_disk()
        self.counts[fault if struck else f"{fault}: not possible"] += 1

    def _kill_child(self) -> bool:
        return self._kill_one_of([child for worker in self._fleet.workers for child in worker.children()])

    def _kill_one_of(self, pids: list[int]) -> bool:
        if not pids:
            return False
        self._kill(self._chance.choice(sorted(pids)))
        return True

    def _kill(self, pid: int) -> None:
        self.damage.note_kill(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _kill_worker(self) -> bool:
        alive = [worker for worker in self._fleet.workers if worker.process.poll() is None and worker.children()]
        if not alive:
            return False
        self._end(self._chance.choice(alive))
        return True

    def _end(self, worker: Worker) -> None:
        """The main process alone, whose pool goes with it, or all of them at once."""
        everything = [worker.process.pid, *worker.children()]
        self.damage.note_dead_worker(worker.name)
        for pid in everything:
            self.damage.note_kill(pid)
        for pid in everything[: self._chance.choice([1, len(everything)])]:
            self._kill(pid)

    def _take_ledger(self) -> bool:
        self._site.ledger.take_away(crash=self._chance.random() < 0.5)
        self._repair_later(Fault.LEDGER, self._outage, self._site.ledger.give_back)
        return True

    def _stop_broker(self, number: signal.Signals) -> bool:
        self._site.broker.stop(number)
        self._repair_later(Fault.BROKER, self._chance.uniform(*_BROKER_SECONDS), self._site.broker.start)
        return True

    def _fill_disk(self) -> bool:
        if not self._site.disk.can_be_filled:
            return False
        self._disk_full_since = time.monotonic()
        self._site.disk.fill()
        self._repair_later(Fault.DISK, min(_DISK_SECONDS, self._outage), self._empty_disk)
        return True

    def _empty_disk(self) -> None:
        self._site.disk.empty()
        assert self._disk_full_since is not None
        self.damage.disk_windows.append(Window(self._disk_full_since, time.monotonic()))
        self._disk_full_since = None

    def _repair_later(self, fault: Fault, seconds: float, repair: Callable[[], None]) -> None:
        def repair_it() -> None:
            repair()
            self._away.discard(fault)

        self._away.add(fault)
        self._repairs.append((time.monotonic() + seconds, repair_it))
