"""What workers and broker said about jobs lately: every fact with its source and its age."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

#: Seconds without an answer after which a node counts as silent; one that answers is asked every second.
SILENT_AFTER: Final = 3.0
#: Seconds that the last word of a silent node is still shown; the ledger has caught up by then, or recovery decides.
LAST_WORD_LIFETIME: Final = 15.0


class LiveState(StrEnum):
    """How a node has a job."""

    #: A slot of its pool runs it.
    ACTIVE = "active"
    #: The node took it from the queue; it waits for a slot.
    RESERVED = "reserved"
    #: The node took it from the queue; it waits for its time.
    SCHEDULED = "scheduled"


class LiveFact(msgspec.Struct, frozen=True, kw_only=True):
    """What one node said about one job; never its arguments."""

    job_id: str
    state: LiveState
    node: str
    #: When the node was asked, by this process's monotonic clock and in UTC: the fact cannot be older.
    at: float
    asked_at: datetime
    task: str | None = None
    queue: str | None = None
    priority: int | None = None
    #: When this run started, by the node's clock.
    started_at: datetime | None = None
    #: When a scheduled job becomes due.
    due_at: datetime | None = None


class NodeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """When a node answered last."""

    node: str
    #: When the newest question was asked that it has answered, as for a fact; unset: it has never answered.
    at: float | None = None
    asked_at: datetime | None = None
    #: The boot that is registered in the broker under this name; unset for a worker without Jobledger.
    boot_id: str | None = None
    #: The queues that it consumes, as far as it has said so.
    queues: tuple[str, ...] = ()
    #: How many workers answer under this name; more than one is a mistake in their start.
    workers: int = 1

    @property
    def is_duplicated(self) -> bool:
        """Whether several workers share the name, so that an absence from one answer says nothing."""
        return self.workers > 1

    def is_silent(self, now: float) -> bool:
        """Whether nothing is known about what the node does now."""
        return self.at is None or now - self.at > SILENT_AFTER

    def age(self, now: float) -> float | None:
        """Return the seconds since the newest question that it answered."""
        return None if self.at is None else max(0.0, now - self.at)


class LiveSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about now, as of ``taken_at``; numbers of time are of this process's monotonic clock.

    What is missing is unknown, never idle or empty.
    """

    taken_at: float
    #: By job id; a job that two nodes have is listed with both.
    facts: dict[str, tuple[LiveFact, ...]] = {}
    #: By name: the registered nodes, and plain Celery workers that answered.
    nodes: dict[str, NodeAnswer] = {}
    #: Waiting messages by queue and priority level, as of ``depths_at``; unset: unknown.
    depths: dict[str, dict[int, int]] | None = None
    depths_at: float | None = None
    #: Since when the broker does not answer, and what it said last; unset while it answers.
    unknown_since: float | None = None
    problem: str | None = None

    def facts_about(self, job_id: str, now: float) -> tuple[LiveFact, ...]:
        """Return what nodes said about a job, without what silent ones said too long ago."""
        return tuple(fact for fact in self.facts.get(job_id, ()) if self._counts(fact, now))

    def job_ids(self, now: float) -> frozenset[str]:
        """Return the jobs that nodes have: a merge needs the ledger's entries of these."""
        return frozenset(job_id for job_id in self.facts if self.facts_about(job_id, now))

    def is_silent(self, node: str, now: float) -> bool:
        """Whether nothing is known about what a node does now."""
        answer = self.nodes.get(node)
        return answer is None or answer.is_silent(now)

    def answering(self, now: float) -> list[str]:
        """Return the names of the nodes that answer."""
        return [name for name in sorted(self.nodes) if not self.is_silent(name, now)]

    def silent(self, now: float) -> list[str]:
        """Return the names of the nodes that should answer and do not."""
        return [name for name in sorted(self.nodes) if self.is_silent(name, now)]

    def duplicated(self) -> list[str]:
        """Return the names that several workers answer to."""
        return [name for name, answer in sorted(self.nodes.items()) if answer.is_duplicated]

    def oldest_age(self, now: float) -> float | None:
        """Return the age in seconds of the oldest fact that still counts; ``None`` when there is none."""
        counting = [fact.at for facts in self.facts.values() for fact in facts if self._counts(fact, now)]
        return max(0.0, now - min(counting)) if counting else None

    def _counts(self, fact: LiveFact, now: float) -> bool:
        return not self.is_silent(fact.node, now) or now - fact.at <= LAST_WORD_LIFETIME
