"""Cancel as a proof: intent, tombstone, removal, inquiry, barrier, verdict, in this order."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from ..errors import BrokerUnavailable, JobActionNotAllowed, JobNotFound
from ..history.barrier import wait_until_recorded
from ..history.event import EventKind, JobEvent, now
from ..history.job import Evidence, JobEnd, JobHistoryEntry, JobStatus
from ..history.job_history_store import CancelIntent, JobHistoryStore, LeaseHold
from ..workers.broker import Broker
from ..workers.control_commands import CANCEL
from ..workers.tombstones import Tombstones
from ..workers.worker_node import JobWhereabouts
from .broker_queues import BrokerQueues, QueuedCopy
from .cancel_outcome import CancelOutcome
from .node_inquiry import Inquiry, ask_nodes
from .node_registry import forget_node, registered_nodes

logger = logging.getLogger("jobledger.cancel")

#: Seconds that one round waits for what the nodes have written to reach the ledger.
BARRIER_TIMEOUT: Final = 2.0
_STOPPABLE: Final = frozenset({JobWhereabouts.HANDED_OVER, JobWhereabouts.RUNNING})


class Cancellation:
    """Carries out cancels; each step may be repeated, by anybody, at any time."""

    def __init__(self, app: Any, store: JobHistoryStore, broker: Broker) -> None:
        self._app = app
        self._store = store
        self._broker = broker
        self._queues = BrokerQueues(broker)
        self._tombstones = Tombstones(broker)

    def request(self, job_id: str, actor: str | None, reason: str | None) -> CancelOutcome:
        """Commit the intent, then carry it out as far as can be proven now."""
        if not self._broker.is_redis:
            raise BrokerUnavailable(f"{self._broker.name} is not Redis or Valkey: jobs there cannot be cancelled.")
        entry = self._store.request_cancel(CancelIntent(job_id=job_id, requested_at=now(), actor=actor, reason=reason))
        if entry is None:
            raise JobNotFound(job_id)
        if entry.status.is_terminal:
            return _repeated(entry)
        try:
            return self.carry_out([job_id])[0]
        except BrokerUnavailable as error:
            raise BrokerUnavailable(
                f"The cancel of {job_id} is recorded, and is carried out when the broker is back. {error}"
            ) from error

    def finish_open(self, lease: LeaseHold) -> list[CancelOutcome]:
        """Carry on with every cancel whose job has not ended, while the caller holds the lease."""
        job_ids = [intent.job_id for intent in self._store.open_cancels()]
        return self.carry_out(job_ids, lease) if job_ids else []

    def restore_tombstones(self, ttl: int) -> None:
        """Write the tombstones of all intents again if the broker holds fewer, and drop the outdated ones."""
        wanted = self._store.cancelled_ids_since(now() - timedelta(seconds=ttl))
        if self._tombstones.count() < len(wanted):
            logger.warning("The broker has lost its deny list; %d ids are written again", len(wanted))
            self._tombstones.add(wanted)
        self._tombstones.prune(ttl)

    def forget_ended_nodes(self) -> None:
        """Take nodes off the broker's list whose boots have ended: nobody needs to ask them any more."""
        registered = self._broker.ask(lambda client: registered_nodes(client, self._broker))
        ended = self._store.ended_boots([boot_id for boot_id in registered.values() if boot_id])
        for name, boot_id in registered.items():
            if boot_id is not None and boot_id in ended:
                self._forget_node(name, boot_id)

    def _forget_node(self, name: str, boot_id: str) -> None:
        self._broker.ask(lambda client: forget_node(client, self._broker, name, boot_id))

    def carry_out(self, job_ids: Sequence[str], lease: LeaseHold | None = None) -> list[CancelOutcome]:
        """Do everything that proves or brings about the end of jobs whose intents are committed."""
        self._tombstones.add(list(job_ids))
        copies = self._remove(job_ids)
        open_ids = [job_id for job_id in job_ids if not self._proven_by_removal(job_id, copies.get(job_id, []), lease)]
        obstacles = self._ask(open_ids, lease) if open_ids else {}
        return [self._outcome(job_id, obstacles.get(job_id)) for job_id in job_ids]

    # -- removal

    def _remove(self, job_ids: Sequence[str]) -> dict[str, list[QueuedCopy]]:
        entries = self._store.get_jobs(job_ids)
        queues = {entry.facts.queue for entry in entries.values() if entry.facts and entry.facts.queue}
        queues |= set(self._app.amqp.queues)
        copies: dict[str, list[QueuedCopy]] = {}
        for copy in self._queues.remove(job_ids, sorted(queue for queue in queues if queue)):
            copies.setdefault(copy.job_id, []).append(copy)
        return copies

    def _proven_by_removal(self, job_id: str, copies: list[QueuedCopy], lease: LeaseHold | None) -> bool:
        """The only copy, never delivered, of a first attempt that nobody was handed: it cannot have started."""
        if len(copies) != 1 or not copies[0].is_untouched:
            return False
        entry = self._store.get_job(job_id)
        if entry is None or entry.handed_over or entry.status.is_terminal:
            return False
        self._conclude(entry, "removed from the queue before any worker took it", lease)
        return True

    # -- inquiry

    def _ask(self, job_ids: Sequence[str], lease: LeaseHold | None) -> dict[str, str]:
        """Ask every node, decide what the answers prove, and return what each other job waits for."""
        inquiry = ask_nodes(self._app, self._broker, self._store, CANCEL, job_ids)
        passed = wait_until_recorded(self._store, inquiry.journals, time.monotonic() + BARRIER_TIMEOUT)
        obstacles = {}
        for job_id in job_ids:
            obstacle = _obstacle(job_id, inquiry, passed) or self._conclude_if_open(job_id, inquiry, lease)
            if obstacle is not None:
                obstacles[job_id] = obstacle
        return obstacles

    def _conclude_if_open(self, job_id: str, inquiry: Inquiry, lease: LeaseHold | None) -> str | None:
        """Conclude, unless the ledger knows of a run on a node that the broker has forgotten; return that obstacle."""
        entry = self._store.get_job(job_id)
        if entry is None or entry.status.is_terminal:
            return None
        boot_id = entry.run_boot_id
        if boot_id is not None and boot_id not in inquiry.boots and not self._store.ended_boots([boot_id]):
            return f"node {entry.run_worker_id} does not answer"
        self._conclude(entry, "no worker has it, and none will start it", lease)
        return None

    def _conclude(self, entry: JobHistoryEntry, detail: str, lease: LeaseHold | None) -> None:
        end = JobEnd(
            status=JobStatus.CANCELLED,
            at=now(),
            requeue=entry.requeue,
            retries=entry.retries,
            evidence=Evidence.VERDICT,
            detail=detail,
        )
        event = JobEvent(
            kind=EventKind.ENDED,
            job_id=entry.job_id,
            at=end.at,
            source="cancel",
            requeue=end.requeue,
            retries=end.retries,
            end=end,
        )
        self._store.append([event], lease=lease)

    def _outcome(self, job_id: str, obstacle: str | None) -> CancelOutcome:
        entry = self._store.get_job(job_id)
        if entry is None:
            raise JobNotFound(job_id)
        if entry.status.is_terminal:
            return CancelOutcome(job_id=job_id, status=entry.status)
        return CancelOutcome(job_id=job_id, status=entry.status, waiting_for=entry.cancel_obstacle or obstacle)


def _obstacle(job_id: str, inquiry: Inquiry, passed: bool) -> str | None:
    """What keeps the answers from proving that a job does not and will not run."""
    if inquiry.whereabouts(job_id) & _STOPPABLE:
        nodes = ", ".join(sorted(inquiry.found[job_id]))
        return f"it runs on {nodes} and was told to stop"
    if not passed:
        return "the ledger does not hold everything yet that the nodes have written"
    return inquiry.obstacle()


def _repeated(entry: JobHistoryEntry) -> CancelOutcome:
    """A second cancel of a cancelled job changes nothing; any other end forbids it."""
    if entry.status is JobStatus.CANCELLED:
        return CancelOutcome(job_id=entry.job_id, status=entry.status)
    raise JobActionNotAllowed(entry.job_id, "cancel", entry.status)
