"""The jobs of a run: what each of them does, who sends it and when; all of it from the seed."""

from __future__ import annotations

import random
from enum import StrEnum
from pathlib import Path

import msgspec

#: Seconds that a job of kind ``LIMIT`` may run; it sleeps for longer.
TIME_LIMIT = 1.0


class Kind(StrEnum):
    """What a job does when nobody disturbs it."""

    #: Returns after a moment.
    SUCCEED = "succeed"
    #: Works for seconds: what faults hit.
    LONG = "long"
    #: Raises.
    RAISE = "raise"
    #: Raises once or twice, is retried by Celery, then returns.
    RETRY = "retry"
    #: Kills its own process.
    SUICIDE = "suicide"
    #: Runs into its hard time limit.
    LIMIT = "limit"
    #: Is cancelled as soon as it is known.
    CANCEL_QUEUED = "cancel queued"
    #: Is cancelled while it runs, and stops by itself.
    CANCEL_POLITE = "cancel polite"
    #: Is cancelled while it runs, and has to be killed.
    CANCEL_STUBBORN = "cancel stubborn"

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asks for its end."""
        return self.value.startswith("cancel")


class Sender(StrEnum):
    """Who submits a job."""

    CONTROLLER = "controller"
    PLAIN = "plain"


class PlannedJob(msgspec.Struct, frozen=True, kw_only=True):
    """One job of the plan; ``at`` is in seconds since the senders began."""

    job_id: str
    kind: Kind
    sender: Sender
    at: float
    seconds: float
    failures: int
    priority: int

    @property
    def task(self) -> str:
        """The name of its task."""
        return "faults.unsteady" if self.kind is Kind.RETRY else "faults.work"

    @property
    def args(self) -> list[str | float | int]:
        """What its task is called with."""
        return [self.failures] if self.kind is Kind.RETRY else [self.kind.value, self.seconds]

    @property
    def time_limit(self) -> float | None:
        """Its hard time limit, if it has one."""
        return TIME_LIMIT if self.kind is Kind.LIMIT else None


_SHARES = {
    Kind.SUCCEED: 46,
    Kind.LONG: 12,
    Kind.RAISE: 10,
    Kind.RETRY: 10,
    Kind.SUICIDE: 3,
    Kind.LIMIT: 4,
    Kind.CANCEL_QUEUED: 7,
    Kind.CANCEL_POLITE: 4,
    Kind.CANCEL_STUBBORN: 4,
}
_SECONDS = {
    Kind.SUCCEED: (0.0, 0.4),
    Kind.LONG: (1.0, 4.0),
    Kind.LIMIT: (30.0, 30.0),
    Kind.CANCEL_QUEUED: (0.1, 0.5),
    Kind.CANCEL_POLITE: (4.0, 6.0),
    Kind.CANCEL_STUBBORN: (4.0, 6.0),
}


def make_plan(seed: int, jobs: int, seconds: float) -> list[PlannedJob]:
    """Return so many jobs, sent over so many seconds."""
    chance = random.Random(seed)
    moments = sorted(chance.uniform(0, seconds) for _ in range(jobs))
    kinds = chance.choices(list(_SHARES), weights=list(_SHARES.values()), k=jobs)
    # Each kind at least once, whatever the seed says.
    kinds[: len(_SHARES)] = list(_SHARES)[:jobs]
    return [_job(chance, seed, number, kinds[number], at) for number, at in enumerate(moments)]


def _job(chance: random.Random, seed: int, number: int, kind: Kind, at: float) -> PlannedJob:
    return PlannedJob(
        job_id=f"job-{seed}-{number:05d}",
        kind=kind,
        sender=chance.choice(list(Sender)),
        at=at,
        seconds=chance.uniform(*_SECONDS.get(kind, (0.0, 0.0))),
        failures=chance.randint(1, 2),
        priority=9 if kind is Kind.CANCEL_QUEUED else chance.randint(0, 8),
    )


def write_plan(path: Path, plan: list[PlannedJob]) -> None:
    """Write the plan for the processes that carry it out."""
    path.write_bytes(msgspec.json.encode(plan))


def read_plan(path: Path) -> list[PlannedJob]:
    """Read the plan."""
    return msgspec.json.decode(path.read_bytes(), type=list[PlannedJob])
