"""Finds jobs that nobody owns any more, and says with which evidence.

A boot ends in the ledger only after all of its journals are recorded, so a job that has not ended by then and was last
seen on it will not end by itself. The verdict is weaker than any real end that still arrives.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from ..history.event import EventKind, JobEvent, now
from ..history.job import Evidence, FailureKind, JobEnd, JobHistoryEntry, JobStatus
from ..history.job_history_store import JobHistoryStore, LeaseHold
from ..history.node import Node
from .broker_queues import BrokerQueues


class RecoveryVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What recovery concludes about one job."""

    job_id: str
    requeue: int
    retries: int
    run_id: str | None
    worker_id: str | None
    status: JobStatus
    #: What shows it.
    evidence: str


class Recovery:
    """Concludes about the unfinished jobs of ended nodes."""

    def __init__(self, store: JobHistoryStore, queues: BrokerQueues) -> None:
        self._store = store
        self._queues = queues

    def verdicts(self) -> list[RecoveryVerdict]:
        """Return what could be concluded now; changes nothing.

        Raises:
            HistoryUnavailable, BrokerUnavailable: then nothing can be concluded.
        """
        lost = self._store.list_jobs_of_ended_nodes()
        if not lost:
            return []
        nodes = {node.boot_id: node for node in self._store.list_nodes(include_ended=True)}
        dropped = self._dropped_by_boot()
        returning = self._returning(lost)
        return [
            _verdict(entry, nodes.get(entry.run_boot_id or ""), dropped[entry.run_boot_id or ""])
            for entry in lost
            if entry.job_id not in returning
        ]

    def recover(self, lease: LeaseHold) -> list[RecoveryVerdict]:
        """Record the verdicts while the caller holds the lease, and return them; raises like ``verdicts``."""
        verdicts = self.verdicts()
        if not verdicts or not self._store.append([_event(verdict) for verdict in verdicts], lease=lease):
            return []
        return verdicts

    def _dropped_by_boot(self) -> Counter[str]:
        """How many events each boot could not write: a job's end may be among them."""
        dropped: Counter[str] = Counter()
        for gap in self._store.recording_gaps():
            dropped[gap.journal.partition(".")[0]] += gap.dropped
        return dropped

    def _returning(self, lost: list[JobHistoryEntry]) -> set[str]:
        """Jobs whose message waits in its queue again, or that no process accepted: the broker delivers them again."""
        if not self._queues.are_visible:
            return set()
        queues = {entry.facts.queue for entry in lost if entry.facts and entry.facts.queue}
        returning = {copy.job_id for copy in self._queues.find([entry.job_id for entry in lost], sorted(queues))}
        not_started = {entry.job_id for entry in lost if not entry.attempt_started}
        return returning | (self._queues.unacknowledged() & not_started if not_started else set())


def _verdict(entry: JobHistoryEntry, node: Node | None, dropped: int) -> RecoveryVerdict:
    name = entry.run_worker_id or "an unknown node"
    how = "died" if node is None or node.ended_how is None else str(node.ended_how)
    what = "ran" if entry.attempt_started else "was about to start"
    evidence = f"it {what} on {name}, which {how}; everything that node wrote is recorded, and no end of the job"
    if dropped:
        evidence += f"; {dropped} events of that node could not be written, maybe its end among them"
    cancelled = entry.cancel_requested_at is not None
    return RecoveryVerdict(
        job_id=entry.job_id,
        requeue=entry.requeue,
        retries=entry.retries,
        run_id=entry.run_id,
        worker_id=entry.run_worker_id,
        status=JobStatus.CANCELLED if cancelled else JobStatus.FAILED,
        evidence=evidence,
    )


def _event(verdict: RecoveryVerdict) -> JobEvent:
    failed = verdict.status is JobStatus.FAILED
    details: dict[str, Any] = {"failure_kind": FailureKind.WORKER_LOST} if failed else {}
    end = JobEnd(
        status=verdict.status,
        at=now(),
        requeue=verdict.requeue,
        retries=verdict.retries,
        evidence=Evidence.VERDICT,
        run_id=verdict.run_id,
        worker_id=verdict.worker_id,
        detail=verdict.evidence,
        error_message=f"Interrupted: {verdict.evidence}" if failed else None,
        **details,
    )
    return JobEvent(
        kind=EventKind.ENDED,
        job_id=verdict.job_id,
        at=end.at,
        source="recovery",
        requeue=verdict.requeue,
        retries=verdict.retries,
        run_id=verdict.run_id,
        worker_id=verdict.worker_id,
        end=end,
    )
