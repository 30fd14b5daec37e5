"""What one batch of events adds to a ledger, worked out before anything is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from .event import EventKind, JobEvent
from .fold import SUBMITTED_RANK, fold, origin_rank
from .job import JobHistoryEntry, Snapshot
from .recordable import RecordableEvent
from .sums import Sums, Tally

#: Lines that are kept of each job's log, the newest ones.
LOG_LINES = 1_000

_PROGRESS: Final = EventKind.PROGRESS
_LOG: Final = EventKind.LOG
_STARTED: Final = EventKind.STARTED
_SUBMITTED: Final = EventKind.SUBMITTED

RankedSnapshot = tuple[int, Snapshot]


class EventBatch:
    """The changed rows; the events, log lines and snapshots to keep, by job id; and the sums."""

    def __init__(self, known: Mapping[str, JobHistoryEntry], events: Iterable[RecordableEvent]) -> None:
        #: The entries as the ledger has them, by id.
        self.known = known
        self.entries: dict[str, JobHistoryEntry] = {}
        self.events: defaultdict[str, list[RecordableEvent]] = defaultdict(list)
        self.log: defaultdict[str, list[RecordableEvent]] = defaultdict(list)
        self.snapshots: dict[str, RankedSnapshot] = {}
        self.sums = Sums()
        for recordable in events:
            self._add(recordable)
        #: The entries that are not yet in the ledger as they are now, by id.
        self.changed = self._changed()
        for entry in self.changed:
            self.sums.replace(known.get(entry.job_id), entry)

    def _changed(self) -> list[JobHistoryEntry]:
        entries = (self.entries[job_id] for job_id in sorted(self.entries))
        return [entry for entry in entries if entry != self.known.get(entry.job_id)]

    def _add(self, recordable: RecordableEvent) -> None:
        event = recordable.event
        job_id, kind = event.job_id, event.kind
        entry = self.entries.get(job_id) or self.known.get(job_id)
        if entry is not None:
            if kind is _SUBMITTED and entry.facts_rank == SUBMITTED_RANK:
                return
            self._tally(entry, event)
        self.entries[job_id] = fold(entry, event)
        if recordable.snapshot is not None:
            self._keep_snapshot(event, recordable.snapshot)
        if kind is _LOG:
            self.log[job_id].append(recordable)
        elif kind is not _PROGRESS:
            self.events[job_id].append(recordable)

    def _tally(self, entry: JobHistoryEntry, event: JobEvent) -> None:
        if event.end is not None and entry.effective_end is not None:
            self.sums.totals[Tally.LATE_ENDS] += 1
        if event.kind is _STARTED and _is_run_twice(entry, event):
            self.sums.totals[Tally.DUPLICATE_RUNS] += 1

    def _keep_snapshot(self, event: JobEvent, snapshot: Snapshot) -> None:
        rank = origin_rank(event)
        kept = self.snapshots.get(event.job_id)
        if kept is None or rank > kept[0]:
            self.snapshots[event.job_id] = (rank, snapshot)


def _is_run_twice(entry: JobHistoryEntry, started: JobEvent) -> bool:
    same_attempt = (started.requeue, started.retries) == (entry.requeue, entry.retries)
    return same_attempt and entry.attempt_started and started.run_id != entry.run_id
