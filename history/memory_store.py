"""The ledger without a database: for tests of what stands on it, also users' own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from threading import RLock
from typing import Any

import msgspec

from .event import JobEvent, now
from .event_batch import LOG_LINES, EventBatch, RankedSnapshot
from .failure_group import failure_group_of
from .failure_group_page import FailureGroupPage, FailureGroupSummary, page_of_groups
from .job import JobFacts, JobHistoryEntry, JobStatus, Snapshot
from .job_cursor import JobCursor, cursor_of, decode_cursor
from .job_history_store import (
    PRUNED_REMEMBERED,
    CancelIntent,
    JobFilter,
    JobPage,
    JobSubmission,
    JournalOffset,
    LeaseHold,
    RecordedEvent,
    RecordingGap,
    clamped,
    listed_offsets,
    request_cancel_event,
    status_change_event,
    submission_event,
)
from .job_search import document_of, has_words, words_of
from .node import Node, NodeEnd
from .poison import PoisonLine, PoisonPlace
from .recordable import RecordableEvent, readable, recordable, recordables
from .statistics import GroupKey, LedgerCounts, Statistics, StepKey, counts_of, range_between, statistics_of
from .sums import NUMBERS, FailureTally, Sums, Tally

_NO_FACTS = JobFacts(task="")


class _Journal(msgspec.Struct):
    end: int = 0
    dropped: int = 0
    poison: dict[int, PoisonLine] = msgspec.field(default_factory=dict)
    updated_at: datetime = msgspec.field(default_factory=now)
    known: bool = False
    ended_at: datetime | None = None


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
        self._pruned: dict[str, datetime] = {}

    def append(
        self,
        events: Sequence[JobEvent | RecordableEvent],
        journal_offset: JournalOffset | Sequence[JournalOffset] | None = None,
        lease: LeaseHold | None = None,
    ) -> bool:
        """Record events, each once: see ``JobHistoryStore.append``."""
        batch, offsets = recordables(events), listed_offsets(journal_offset)
        with self._lock:
            if lease is not None and not self._holds(lease):
                return False
            if not all(self._is_at(offset.journal, offset.start) for offset in offsets):
                return False
            self._record(batch)
            for offset in offsets:
                self._advance(offset)
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

    def index_for_search(self, limit: int = 500) -> int:
        """Return 0: searches look at the jobs themselves."""
        return 0

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
            request = recordable(request_cancel_event(intent))
            event = request.event
            self._intents[intent.job_id] = CancelIntent(
                job_id=event.job_id, requested_at=event.at, actor=event.actor, reason=event.reason
            )
            self._record([request])
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
            poison = PoisonLine(journal=journal, offset=offset, line=line, reason=readable(reason), recorded_at=now())
            kept.poison.setdefault(offset, poison)

    def list_poison(self, after: PoisonPlace | None = None, limit: int = 100) -> list[PoisonLine]:
        """Return lines that were set aside, by their places, those behind ``after``."""
        behind = [line for line in self._poison() if after is None or line.place > after]
        return behind[: max(0, limit)]

    def newest_poison(self, limit: int = 5) -> list[PoisonLine]:
        """Return the lines of the newest journals, last ones first."""
        return self._poison()[::-1][: max(0, limit)]

    def get_poison(self, place: PoisonPlace) -> PoisonLine | None:
        """Return one line that was set aside, or ``None``."""
        with self._lock:
            return self._journals.get(place.journal, _Journal()).poison.get(place.offset)

    def release_poison(self, place: PoisonPlace, event: JobEvent | None, dropped: int = 0) -> bool:
        """Record what a line turned out to say and remove the line; False if it is not there."""
        events = [] if event is None else [recordable(event)]
        with self._lock:
            if self.get_poison(place) is None:
                return False
            self._record(events)
            journal = self._journals[place.journal]
            del journal.poison[place.offset]
            journal.dropped = max(journal.dropped, dropped if journal.known else 0)
        return True

    def blame_poison(self, place: PoisonPlace, reason: str) -> None:
        """Give a line that was set aside another reason."""
        with self._lock:
            line = self.get_poison(place)
            if line is not None:
                blamed = msgspec.structs.replace(line, reason=readable(reason))
                self._journals[place.journal].poison[place.offset] = blamed

    def _poison(self) -> list[PoisonLine]:
        with self._lock:
            lines = [line for journal in self._journals.values() for line in journal.poison.values()]
        return sorted(lines, key=lambda line: line.place)

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

    def end_journal(self, journal: str) -> None:
        """Record that a journal's file is deleted, all of it recorded; retention removes its row later."""
        with self._lock:
            if journal in self._journals:
                self._journals[journal].ended_at = now()

    def list_ended_jobs(
        self, submitted_before: Mapping[JobStatus, datetime | None], after: JobCursor | None = None, limit: int = 50
    ) -> list[JobHistoryEntry]:
        """Return ended jobs of the statuses, oldest first by submission, each status up to its moment if it has one."""
        with self._lock:
            ended = [entry for entry in self._entries.values() if _is_submitted_before(entry, submitted_before)]
        behind = [entry for entry in ended if after is None or _place(entry) > (after.created_at, after.job_id)]
        return sorted(behind, key=_place)[: max(0, limit)]

    def jobs_with_active_retries(self, entries: Collection[JobHistoryEntry]) -> set[str]:
        """Return the ids of those of the jobs of which a retry waits or runs."""
        with self._lock:
            active = [entry.facts for entry in self._entries.values() if not entry.status.is_terminal]
        return {entry.job_id for entry in entries} & {facts.retry_of for facts in active if facts and facts.retry_of}

    def get_events_of_jobs(self, job_ids: Collection[str]) -> dict[str, list[RecordedEvent]]:
        """Return the events of each job, like ``get_job_events``; a job without any is missing."""
        with self._lock:
            return {job_id: list(self._events[job_id]) for job_id in job_ids if job_id in self._events}

    def remove_jobs(self, entries: Collection[JobHistoryEntry], lease: LeaseHold) -> set[str] | None:
        """Remove ended jobs with everything about them: see ``JobHistoryStore.remove_jobs``."""
        with self._lock:
            if not self._holds(lease):
                return None
            needed = self.jobs_with_active_retries(entries)
            going = [entry for entry in entries if entry.job_id not in needed and self._is_unchanged_end(entry)]
            for entry in going:
                self._remove(entry)
            return {entry.job_id for entry in going}

    def _is_unchanged_end(self, entry: JobHistoryEntry) -> bool:
        return entry.status.is_terminal and self._entries.get(entry.job_id) == entry

    def _remove(self, entry: JobHistoryEntry) -> None:
        for kept in (self._entries, self._events, self._log, self._snapshots, self._intents):
            kept.pop(entry.job_id, None)
        self._sums.remove(entry)
        self._pruned[entry.job_id] = now()

    def remove_rest(self, before: datetime | None, lease: LeaseHold) -> int | None:
        """Remove what else is too old: see ``JobHistoryStore.remove_rest``."""
        with self._lock:
            if not self._holds(lease):
                return None
            forgotten = now() - PRUNED_REMEMBERED
            rows = _drop(self._pruned, [job_id for job_id, at in self._pruned.items() if at < forgotten])
            if before is not None:
                needed = {entry.run_boot_id for entry in self._entries.values() if not entry.status.is_terminal}
                ended = [boot_id for boot_id, node in self._nodes.items() if _ended_before(node, before)]
                rows += _drop(self._nodes, [boot_id for boot_id in ended if boot_id not in needed])
                rows += _drop(self._journals, [n for n, each in self._journals.items() if _ended_before(each, before)])
            return rows

    def _holds(self, lease: LeaseHold) -> bool:
        return self._leases.get(lease.name, _Lease()).fence == lease.fence

    def counts(self) -> LedgerCounts:
        """Return how many jobs there are by status, and what else was counted."""
        with self._lock:
            return counts_of({name.value: count for name, count in self._sums.totals.items()})

    def statistics(
        self, since: datetime, until: datetime, task: str | None = None, queue: str | None = None
    ) -> Statistics:
        """Return what the jobs did between two moments: see ``JobHistoryStore.statistics``."""
        wanted = range_between(since, until)
        groups: Counter[GroupKey] = Counter()
        steps: Counter[StepKey] = Counter()
        with self._lock:
            for key, count in self._sums.statistics.items():
                if wanted.start <= key.minute < wanted.end and task in {None, key.task} and queue in {None, key.queue}:
                    groups[key.task, key.queue, key.measure, key.bucket] += count
                    if key.measure in NUMBERS:
                        steps[key.minute - key.minute % wanted.step, key.measure] += count
        return statistics_of(wanted, groups, steps)

    def failure_groups(self, cursor: str | None = None, limit: int = 50) -> FailureGroupPage:
        """Return a page of the groups of failed jobs, the one that failed last first."""
        after = None if cursor is None else decode_cursor(cursor)
        with self._lock:
            groups = [_summary_of(tally, self._example_of(tally)) for tally in self._sums.failures.values()]
        groups = [group for group in groups if group.count > 0]
        if after is not None:
            groups = [g for g in groups if (g.last_seen_at, g.fingerprint) < (after.created_at, after.job_id)]
        groups.sort(key=lambda group: (group.last_seen_at, group.fingerprint), reverse=True)
        return page_of_groups(groups, clamped(limit)) if clamped(limit) else FailureGroupPage(groups=())

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

    def lease_left(self, name: str) -> float | None:
        """Return for how many more seconds a lease is held; ``None`` when it is free."""
        with self._lock:
            lease = self._leases.get(name)
            if lease is None or lease.holder is None or lease.expires_at <= now():
                return None
            return (lease.expires_at - now()).total_seconds()

    def check_writing(self) -> None:
        """Memory can always be written."""

    def check(self) -> None:
        """Memory always answers."""

    def close(self) -> None:
        """Nothing is held open."""

    def _is_at(self, journal: str, start: int) -> bool:
        known = self._journals.get(journal)
        return start == (known.end if known else 0)

    def _advance(self, offset: JournalOffset) -> None:
        journal = self._journals.setdefault(offset.journal, _Journal())
        journal.end = offset.end
        journal.known = True
        journal.dropped = max(journal.dropped, offset.dropped)
        journal.updated_at = now()

    def _record(self, events: Sequence[RecordableEvent]) -> EventBatch:
        living = [recordable for recordable in events if recordable.event.job_id not in self._pruned]
        batch = EventBatch(self._entries, living)
        batch.sums.totals[Tally.EVENTS_AFTER_REMOVAL] += len(events) - len(living)
        self._entries.update(batch.entries)
        self._sums.add(batch.sums)
        for job_id, kept in batch.events.items():
            self._events.setdefault(job_id, []).extend(self._recorded(each.event) for each in kept)
        for job_id, lines in batch.log.items():
            log = self._log.get(job_id, []) + [self._recorded(line.event) for line in lines]
            self._log[job_id] = log[-LOG_LINES:]
        for job_id, ranked in batch.snapshots.items():
            kept_snapshot = self._snapshots.get(job_id)
            if kept_snapshot is None or ranked[0] > kept_snapshot[0]:
                self._snapshots[job_id] = ranked
        return batch

    def _recorded(self, event: JobEvent) -> RecordedEvent:
        self._seq += 1
        return RecordedEvent(seq=self._seq, recorded_at=now(), event=event)

    def _example_of(self, tally: FailureTally) -> str:
        failed = [entry for entry in self._entries.values() if failure_group_of(entry) == tally.group]
        if not failed or any(entry.job_id == tally.example_job_id for entry in failed):
            return tally.example_job_id
        return max(failed, key=_place).job_id

    def _newest_first(self, job_filter: JobFilter) -> list[JobHistoryEntry]:
        with self._lock:
            entries = [entry for entry in self._entries.values() if _matches(entry, job_filter)]
        return sorted(entries, key=_place, reverse=True)


def _summary_of(tally: FailureTally, example: str) -> FailureGroupSummary:
    return FailureGroupSummary(
        **tally.group._asdict(),
        count=tally.count,
        first_seen_at=tally.first_seen_at,
        last_seen_at=tally.last_seen_at,
        example_job_id=example,
    )


def _place(entry: JobHistoryEntry) -> tuple[datetime, str]:
    return entry.created_at, entry.job_id


def _is_submitted_before(entry: JobHistoryEntry, moments: Mapping[JobStatus, datetime | None]) -> bool:
    if not entry.status.is_terminal or entry.status not in moments:
        return False
    before = moments[entry.status]
    return before is None or entry.created_at < before


def _ended_before(ended: Node | _Journal, moment: datetime) -> bool:
    return ended.ended_at is not None and ended.ended_at < moment


def _drop(kept: dict[str, Any], names: Collection[str]) -> int:
    for name in names:
        del kept[name]
    return len(names)


def _matches(entry: JobHistoryEntry, wanted: JobFilter) -> bool:
    return _has_statuses_and_times(entry, wanted) and _has_names(entry, wanted) and _has_labels(entry, wanted)


def _has_statuses_and_times(entry: JobHistoryEntry, wanted: JobFilter) -> bool:
    return (
        (not wanted.statuses or entry.status in wanted.statuses)
        and (wanted.since is None or entry.created_at >= wanted.since)
        and (wanted.until is None or entry.created_at < wanted.until)
    )


def _has_names(entry: JobHistoryEntry, wanted: JobFilter) -> bool:
    facts = entry.facts or _NO_FACTS
    group = failure_group_of(entry)
    return (
        wanted.task in (None, entry.task)
        and wanted.queue in (None, facts.queue)
        and wanted.worker_id in (None, entry.worker_id)
        and wanted.group_id in (None, facts.group_id)
        and wanted.root_id in (None, facts.root_id, entry.job_id)
        and wanted.failure_group in (None, group.fingerprint if group else None)
    )


def _has_labels(entry: JobHistoryEntry, wanted: JobFilter) -> bool:
    facts = entry.facts or _NO_FACTS
    return (
        set(wanted.tags) <= set(facts.tags)
        and set(wanted.metadata) <= set(facts.metadata)
        and (wanted.text is None or has_words(document_of(entry), words_of(wanted.text)))
    )


def _oldest_first(intents: Iterable[CancelIntent]) -> list[CancelIntent]:
    return sorted(intents, key=lambda intent: (intent.requested_at, intent.job_id))
