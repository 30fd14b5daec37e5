"""The ledger without a database: for tests of what stands on it, also users' own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from threading import RLock

import msgspec

from .event import JobEvent, now
from .event_batch import LOG_LINES, EventBatch, RankedSnapshot
from .job import JobHistoryEntry, JobStatus, Snapshot
from .job_cursor import cursor_of, decode_cursor
from .job_history_store import (
    CancelIntent,
    JobFilter,
    JobPage,
    JobSubmission,
    JournalOffset,
    LeaseHold,
    RecordedEvent,
    RecordingGap,
    clamped,
    request_cancel_event,
    status_change_event,
    submission_event,
)
from .node import Node, NodeEnd
from .recordable import recordable
from .sums import Sums


class _Journal(msgspec.Struct):
    end: int = 0
    dropped: int = 0
    poison: dict[int, tuple[bytes, str]] = msgspec.field(default_factory=dict)
    updated_at: datetime = msgspec.field(default_factory=now)
    known: bool = False


class _Lease(msgspec.Struct):
    holder: str | None = None
    fence: int = 0
    expires_at: datetime = msgspec.field(default_factory=now)


class MemoryJobHistoryStore:
    """A ``JobHistoryStore`` that behaves like the SQL one and forgets everything with its process."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._seq = 0
        self._entries: dict[str, JobHistoryEntry] = {}
        self._events: dict[str, list[RecordedEvent]] = {}
        self._log: dict[str, list[RecordedEvent]] = {}
        self._snapshots: dict[str, RankedSnapshot] = {}
        self._intents: dict[str, CancelIntent] = {}
        self._journals: dict[str, _Journal] = {}
        self._nodes: dict[str, Node] = {}
        self._leases: dict[str, _Lease] = {}
        self._sums = Sums()

    def append(
        self,
        events: Sequence[JobEvent],
        journal_offset: JournalOffset | None = None,
        lease: LeaseHold | None = None,
    ) -> bool:
        """Record events, each once: see ``JobHistoryStore.append``."""
        recordables = [recordable(event) for event in events]
        with self._lock:
            if lease is not None and self._leases.get(lease.name, _Lease()).fence != lease.fence:
                return False
            if journal_offset is not None and not self._advance(journal_offset):
                return False
            self._record(recordables)
        return True

    def record_job_submission(self, job: JobSubmission) -> bool:
        """Record a new job with its snapshot; return False for an id that was submitted before."""
        event = recordable(submission_event(job))
        with self._lock:
            return bool(self._record([event]).events)

    def record_status_change(self, job_id: str, status: JobStatus, ts: datetime, error: str | None = None) -> None:
        """Record that a job's first attempt changed its status; for an unknown id too, to be filled in later."""
        self.append([status_change_event(job_id, status, ts, error)])

    def list_jobs(self, status: JobStatus | None = None, limit: int = 50, offset: int = 0) -> list[JobHistoryEntry]:
        """Return entries, newest first, ties by id."""
        entries = self._newest_first(JobFilter(statuses=(status,) if status else ()))
        return entries[max(0, offset) :][: clamped(limit)]

    def page_jobs(self, job_filter: JobFilter, cursor: str | None = None, limit: int = 50) -> JobPage:
        """Return a page of the filtered jobs, newest first."""
        entries = self._newest_first(job_filter)
        if cursor is not None:
            after = decode_cursor(cursor)
            entries = [entry for entry in entries if _place(entry) < (after.created_at, after.job_id)]
        shown = entries[: clamped(limit)]
        more = len(entries) > len(shown) > 0
        return JobPage(entries=tuple(shown), next_cursor=cursor_of(*_place(shown[-1])) if more else None)

    def get_job(self, job_id: str) -> JobHistoryEntry | None:
        """Return one entry, or ``None`` for an id that is not known."""
        return self._entries.get(job_id)

    def get_jobs(self, job_ids: Collection[str]) -> dict[str, JobHistoryEntry]:
        """Return the known ones among the ids."""
        return {job_id: self._entries[job_id] for job_id in job_ids if job_id in self._entries}

    def get_job_events(self, job_id: str) -> list[RecordedEvent]:
        """Return a job's events in the order of recording, log lines and progress left out."""
        return list(self._events.get(job_id, ()))

    def get_job_log(self, job_id: str, limit: int = 200) -> list[RecordedEvent]:
        """Return the newest lines of a job's log, oldest first."""
        lines = self._log.get(job_id, [])
        return lines[max(0, len(lines) - max(0, limit)) :]

    def get_snapshot(self, job_id: str) -> Snapshot | None:
        """Return a job's sealed snapshot, if one was kept."""
        ranked = self._snapshots.get(job_id)
        return ranked[1] if ranked else None

    def request_cancel(self, intent: CancelIntent) -> JobHistoryEntry | None:
        """Commit the intent and its event if the job exists and has not ended; return its entry as it is then."""
        with self._lock:
            entry = self._entries.get(intent.job_id)
            if entry is None or entry.status.is_terminal or intent.job_id in self._intents:
                return entry
            event = recordable(request_cancel_event(intent))
            self._intents[intent.job_id] = CancelIntent(
                job_id=event.job_id, requested_at=event.at, actor=event.actor, reason=event.reason
            )
            self._record([event])
            return self._entries[intent.job_id]

    def open_cancels(self, limit: int = 1_000) -> list[CancelIntent]:
        """Return intents whose jobs have not ended, oldest first."""
        with self._lock:
            entries = [self._entries[job_id] for job_id in self._intents]
            unfinished = [entry for entry in entries if not entry.status.is_terminal]
            unfinished.sort(key=lambda entry: (entry.cancel_requested_at or entry.created_at, entry.job_id))
            return [self._intents[entry.job_id] for entry in unfinished[: max(0, limit)]]

    def cancelled_ids_since(self, moment: datetime) -> list[str]:
        """Return the ids of all intents since ``moment``: what the broker's deny set must hold."""
        with self._lock:
            intents = [intent for intent in self._intents.values() if intent.requested_at >= moment]
        return [intent.job_id for intent in _oldest_first(intents)]

    def has_cancel_intent(self, job_id: str) -> bool:
        """Whether somebody asked for the job's end."""
        return job_id in self._intents

    def journal_ends(self, journals: Collection[str]) -> dict[str, int]:
        """Return up to which byte each of the journals is recorded; unknown ones are missing."""
        with self._lock:
            return {
                name: self._journals[name].end
                for name in journals
                if name in self._journals and self._journals[name].known
            }

    def record_poison(self, journal: str, offset: int, line: bytes, reason: str) -> None:
        """Set a line aside that nobody can read, with its place and the reason; once for each place."""
        with self._lock:
            kept = self._journals.setdefault(journal, _Journal())
            kept.poison.setdefault(offset, (line, reason))

    def recording_gaps(self) -> list[RecordingGap]:
        """Return the journals with dropped or unreadable events, by name."""
        with self._lock:
            return [
                RecordingGap(
                    journal=name,
                    dropped=journal.dropped,
                    poisoned=len(journal.poison),
                    updated_at=journal.updated_at,
                )
                for name, journal in sorted(self._journals.items())
                if journal.dropped or journal.poison
            ]

    def record_node(self, node: Node) -> None:
        """Record a node's boot; an earlier boot of the same id is replaced."""
        with self._lock:
            self._nodes[node.boot_id] = node

    def record_heartbeats(self, boot_ids: Collection[str], at: datetime) -> None:
        """Count every named node's heartbeat up by one."""
        with self._lock:
            for node in [self._nodes[boot_id] for boot_id in set(boot_ids) if boot_id in self._nodes]:
                self._nodes[node.boot_id] = msgspec.structs.replace(node, heartbeat=node.heartbeat + 1, heartbeat_at=at)

    def end_node(self, boot_id: str, how: NodeEnd, at: datetime) -> None:
        """Record the end of a boot, after all of its journals were recorded; the first end stays."""
        with self._lock:
            node = self._nodes.get(boot_id)
            if node is not None and node.ended_at is None:
                self._nodes[boot_id] = msgspec.structs.replace(node, ended_at=at, ended_how=how)

    def ended_boots(self, boot_ids: Collection[str]) -> set[str]:
        """Return which of the boots are known to have ended."""
        return {boot_id for boot_id in boot_ids if boot_id in self._nodes and self._nodes[boot_id].ended_at is not None}

    def list_nodes(self, include_ended: bool = False) -> list[Node]:
        """Return the nodes, newest boot first."""
        with self._lock:
            nodes = [node for node in self._nodes.values() if include_ended or node.ended_at is None]
        return sorted(nodes, key=lambda node: (node.started_at, node.boot_id), reverse=True)

    def list_jobs_of_ended_nodes(self, limit: int = 500) -> list[JobHistoryEntry]:
        """Return unfinished jobs whose latest run was on a boot that has ended, oldest first."""
        with self._lock:
            ended = {node.boot_id for node in self._nodes.values() if node.ended_at is not None}
            unfinished = [entry for entry in self._entries.values() if not entry.status.is_terminal]
        return sorted((entry for entry in unfinished if entry.run_boot_id in ended), key=_place)[: max(0, limit)]

    def acquire_lease(self, name: str, holder: str, seconds: float) -> int | None:
        """Take or renew a lease; return its fencing number, or ``None`` while somebody else holds it."""
        with self._lock:
            lease = self._leases.setdefault(name, _Lease())
            if lease.holder not in {None, holder} and lease.expires_at > now():
                return None
            lease.fence += lease.holder != holder
            lease.holder = holder
            lease.expires_at = now() + timedelta(seconds=seconds)
            return lease.fence

    def release_lease(self, name: str, holder: str) -> None:
        """Give a lease back, if the holder has it."""
        with self._lock:
            lease = self._leases.get(name)
            if lease is not None and lease.holder == holder:
                lease.holder = None

    def lease_holder(self, name: str) -> str | None:
        """Return who holds a lease now; ``None`` when it is free, given back or has run out."""
        with self._lock:
            lease = self._leases.get(name)
            return lease.holder if lease is not None and lease.expires_at > now() else None

    def check(self) -> None:
        """Memory always answers."""

    def close(self) -> None:
        """Nothing is held open."""

    def _advance(self, offset: JournalOffset) -> bool:
        journal = self._journals.get(offset.journal) or _Journal()
        if journal.end != offset.start:
            return False
        journal.end = offset.end
        journal.known = True
        journal.dropped = max(journal.dropped, offset.dropped)
        journal.updated_at = now()
        self._journals[offset.journal] = journal
        return True

    def _record(self, events: Iterable[JobEvent]) -> EventBatch:
        batch = EventBatch(self._entries, events)
        self._entries.update(batch.entries)
        self._sums.add(batch.sums)
        for event in batch.events:
            self._events.setdefault(event.job_id, []).append(self._recorded(event))
        for job_id, lines in batch.log.items():
            kept = self._log.get(job_id, []) + [self._recorded(line) for line in lines]
            self._log[job_id] = kept[-LOG_LINES:]
        for job_id, ranked in batch.snapshots.items():
            kept_snapshot = self._snapshots.get(job_id)
            if kept_snapshot is None or ranked[0] > kept_snapshot[0]:
                self._snapshots[job_id] = ranked
        return batch

    def _recorded(self, event: JobEvent) -> RecordedEvent:
        self._seq += 1
        return RecordedEvent(seq=self._seq, recorded_at=now(), event=event)

    def _newest_first(self, job_filter: JobFilter) -> list[JobHistoryEntry]:
        with self._lock:
            entries = [entry for entry in self._entries.values() if _matches(entry, job_filter)]
        return sorted(entries, key=_place, reverse=True)


def _place(entry: JobHistoryEntry) -> tuple[datetime, str]:
    return entry.created_at, entry.job_id


def _matches(entry: JobHistoryEntry, job_filter: JobFilter) -> bool:
    queue = entry.facts.queue if entry.facts else None
    return (
        (not job_filter.statuses or entry.status in job_filter.statuses)
        and (job_filter.task is None or entry.task == job_filter.task)
        and (job_filter.queue is None or queue == job_filter.queue)
    )


def _oldest_first(intents: Iterable[CancelIntent]) -> list[CancelIntent]:
    return sorted(intents, key=lambda intent: (intent.requested_at, intent.job_id))
