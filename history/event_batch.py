"""What one batch of events adds to a ledger, worked out before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from .event import EventKind, JobEvent
from .fold import SUBMITTED_RANK, fold, origin_rank
from .job import JobHistoryEntry, Snapshot
from .sums import Sums, Tally

#: Lines that are kept of each job's log, the newest ones.
LOG_LINES = 1_000

RankedSnapshot = tuple[int, Snapshot]


class EventBatch:
    """The changed rows, the events, log lines and snapshots to keep (the latter two by job id), and the sums."""

    def __init__(self, known: Mapping[str, JobHistoryEntry], events: Iterable[JobEvent]) -> None:
        self._known = known
        self.entries: dict[str, JobHistoryEntry] = {}
        self.events: list[JobEvent] = []
        self.log: dict[str, list[JobEvent]] = {}
        self.snapshots: dict[str, RankedSnapshot] = {}
        self.sums = Sums()
        for event in events:
            self._add(event)
        #: The entries that are not yet in the ledger as they are now, by id.
        self.changed = self._changed()
        for entry in self.changed:
            self.sums.replace(known.get(entry.job_id), entry)

    def _changed(self) -> list[JobHistoryEntry]:
        entries = (self.entries[job_id] for job_id in sorted(self.entries))
        return [entry for entry in entries if entry != self._known.get(entry.job_id)]

    def _add(self, event: JobEvent) -> None:
        entry = self.entries.get(event.job_id) or self._known.get(event.job_id)
        if _is_submitted_again(entry, event):
            return
        if entry is not None:
            self._tally(entry, event)
        self.entries[event.job_id] = fold(entry, event)
        self._keep_snapshot(event)
        self._keep_event(msgspec.structs.replace(event, snapshot=None) if event.snapshot else event)

    def _tally(self, entry: JobHistoryEntry, event: JobEvent) -> None:
        if event.end is not None and entry.status.is_terminal:
            self.sums.totals[Tally.LATE_ENDS] += 1
        if event.kind is EventKind.STARTED and _is_run_twice(entry, event):
            self.sums.totals[Tally.DUPLICATE_RUNS] += 1

    def _keep_snapshot(self, event: JobEvent) -> None:
        if event.snapshot is None:
            return
        rank = origin_rank(event)
        kept = self.snapshots.get(event.job_id)
        if kept is None or rank > kept[0]:
            self.snapshots[event.job_id] = (rank, event.snapshot)

    def _keep_event(self, event: JobEvent) -> None:
        match event.kind:
            case EventKind.PROGRESS:
                return
            case EventKind.LOG:
                self.log.setdefault(event.job_id, []).append(event)
            case _:
                self.events.append(event)


def _is_submitted_again(entry: JobHistoryEntry | None, event: JobEvent) -> bool:
    return event.kind is EventKind.SUBMITTED and entry is not None and entry.facts_rank == SUBMITTED_RANK


def _is_run_twice(entry: JobHistoryEntry, started: JobEvent) -> bool:
    same_attempt = (started.requeue, started.retries) == (entry.requeue, entry.retries)
    return same_attempt and entry.attempt_started and started.run_id != entry.run_id
