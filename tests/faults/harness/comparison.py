"""Compares what the ledger says of each job with what the jobs wrote themselves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from enum import StrEnum
from typing import NamedTuple

import msgspec
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.fold import fold
from jobledger.history.job import Evidence, FailureKind, JobHistoryEntry, JobStatus
from jobledger.history.job_history_store import JobHistoryStore, RecordedEvent

from .damage import Damage
from .plan import Kind, PlannedJob
from .truth import Act, JobTruth, Run

#: Seconds between a run's last words and its kill, in which it may have had no time to say them to the journal too.
_CUT_SHORT = 1.0
#: Seconds after a full disk in which a writer still waits before it tries again.
_DISK_AFTERMATH = 2.0
#: Seconds in which the main process sees the death of a pool child.
_DEATH_SEEN = 6.0
#: The fields of an entry that come from log lines and progress, which the ledger does not keep as events.
_NOT_FROM_EVENTS = {"progress", "progress_at", "facts", "facts_rank"}


class Finding(StrEnum):
    """What the comparison of one job comes to."""

    RIGHT = "right"
    #: It has no end yet, nothing of it runs or waits, and the truth says that it never started: recovery's work.
    UNDECIDED = "undecided"
    #: Its process was killed between its last words and the journal: both readings are true.
    CUT_SHORT = "cut short"
    #: Events of it are missing from a full disk, and the ledger says that some are.
    GAP = "gap, counted"
    #: The same, but the process that would have counted them was killed while the disk was full.
    GAP_UNTOLD = "gap, its writer was killed"
    LOST = "lost"
    WRONG = "wrong"

    @property
    def is_defect(self) -> bool:
        """Whether the ledger fails its promise."""
        return self in (Finding.LOST, Finding.WRONG)


class Judgement(NamedTuple):
    """What was found about one job, and why."""

    job: PlannedJob
    status: JobStatus | None
    finding: Finding
    reason: str


class Comparison:
    """Everything that is known at the end of a run."""

    def __init__(
        self,
        store: JobHistoryStore,
        plan: list[PlannedJob],
        truths: dict[str, JobTruth],
        damage: Damage,
        waiting: Collection[str] = (),
        unacknowledged: Collection[str] = (),
    ) -> None:
        self._store = store
        self._plan = plan
        self._truths = truths
        self._damage = damage
        #: Jobs whose messages lie in the broker: in a queue, and with a worker that died.
        self._waiting = waiting
        self._unacknowledged = unacknowledged
        self._boots = {node.name: node.boot_id for node in store.list_nodes(include_ended=True)}
        gaps = store.recording_gaps()
        self.dropped = sum(gap.dropped for gap in gaps)
        self.poisoned = sum(gap.poisoned for gap in gaps)
        self._boots_with_gaps = {gap.journal.split(".", 1)[0] for gap in gaps if gap.dropped}

    def judge_all(self) -> list[Judgement]:
        """Judge every job of the plan."""
        return [self._judge(job, self._truths.get(job.job_id, JobTruth())) for job in self._plan]

    def strangers(self) -> list[str]:
        """Return jobs that the ledger knows and nobody has planned."""
        known = {job.job_id for job in self._plan}
        found: list[str] = []
        offset = 0
        while page := self._store.list_jobs(limit=500, offset=offset):
            found += [entry.job_id for entry in page if entry.job_id not in known]
            offset += len(page)
        return found

    def _judge(self, job: PlannedJob, truth: JobTruth) -> Judgement:
        entry = self._store.get_job(job.job_id)
        if entry is None:
            return Judgement(job, None, *self._judge_absence(job, truth))
        recorded = self._store.get_job_events(job.job_id)
        events = [each.event for each in recorded]
        found = [
            *self._check_row(entry, recorded),
            *self._check_runs(truth, events),
            self._check_status(job, truth, entry, events),
        ]
        finding, reason = max(found, key=lambda pair: list(Finding).index(pair[0]))
        if finding.is_defect:
            finding, reason = self._excuse(job, truth, finding, reason)
        if finding is Finding.GAP and _is_silent_verdict(entry):
            finding, reason = Finding.WRONG, f"{reason}, and the verdict does not say that events are missing"
        return Judgement(job, entry.status, finding, reason)

    def _judge_absence(self, job: PlannedJob, truth: JobTruth) -> tuple[Finding, str]:
        if truth.runs or truth.did(Act.SENT):
            return self._excuse(job, truth, Finding.LOST, "it has no row")
        return Finding.RIGHT, "its sender was refused"

    # -- the row against the events

    def _check_row(self, entry: JobHistoryEntry, recorded: list[RecordedEvent]) -> list[tuple[Finding, str]]:
        found = []
        folded: JobHistoryEntry | None = None
        for each in recorded:
            folded = fold(folded, each.event)
        if folded is None or _comparable(folded) != _comparable(entry):
            found.append((Finding.WRONG, "its row is not what its events fold into"))
        copies = Counter(msgspec.json.encode(each.event) for each in recorded)
        if copies and max(copies.values()) > 1:
            found.append((Finding.WRONG, "an event was recorded twice"))
        return found

    # -- the runs against the events

    def _check_runs(self, truth: JobTruth, events: list[JobEvent]) -> list[tuple[Finding, str]]:
        started = {event.run_id for event in events if event.kind is EventKind.STARTED}
        found = [
            (Finding.LOST, f"no event says that run {run.start.run_id} started")
            for run in truth.runs
            if run.start.run_id not in started
        ]
        for run in truth.runs:
            if run.act in (Act.END, Act.RAISE, Act.STOP, Act.RAISE_AGAIN) and not _has_end(run, events):
                if self._was_cut_short(run) or _was_killed_by_node(run, events):
                    found.append((Finding.CUT_SHORT, f"killed right after its last words ({run.act})"))
                else:
                    found.append((Finding.LOST, f"no event says how run {run.start.run_id} ended ({run.act})"))
        return found

    def _was_cut_short(self, run: Run) -> bool:
        last = run.last
        if last is None or not run.is_last_of_process:
            return False
        return self._damage.killed_within(last.pid, last.at, last.at + _CUT_SHORT)

    # -- the status against the truth

    def _check_status(
        self, job: PlannedJob, truth: JobTruth, entry: JobHistoryEntry, events: list[JobEvent]
    ) -> tuple[Finding, str]:
        match entry.status:
            case JobStatus.COMPLETED:
                finished = {run.start.run_id for run in truth.finished}
                return _expect(entry.end is not None and entry.end.run_id in finished, "that run of it did not return")
            case JobStatus.QUEUED:
                return self._check_queued(truth, entry, events)
            case JobStatus.RUNNING:
                return Finding.WRONG, "it is left running, and every worker is gone"
            case JobStatus.CANCELLED:
                return self._check_cancelled(truth, entry, events)
            case JobStatus.FAILED:
                return self._check_failed(job, truth, entry)

    def _check_queued(self, truth: JobTruth, entry: JobHistoryEntry, events: list[JobEvent]) -> tuple[Finding, str]:
        if any(run.start.retries >= entry.retries for run in truth.runs) or truth.finished:
            return Finding.WRONG, "it ran, and its row says that it waits"
        if entry.job_id in self._waiting:
            return Finding.WRONG, "its message still waits, and nobody took it"
        if entry.cancel_requested_at is not None:
            return Finding.WRONG, "its cancel is still open, and every worker is gone"
        if entry.run_id is not None and entry.job_id not in self._unacknowledged:
            return Finding.WRONG, f"it was handed over on {entry.run_worker_id}, which has ended, and nobody concluded"
        if any(event.kind is EventKind.DUPLICATE_DROPPED for event in events):
            return Finding.WRONG, "its message was dropped as a duplicate, and it never ran"
        return Finding.UNDECIDED, self._why_undecided(truth, entry)

    def _why_undecided(self, truth: JobTruth, entry: JobHistoryEntry) -> str:
        attempt = "its retry" if entry.retries else "it"
        if entry.job_id in self._unacknowledged:
            return f"{attempt} is unacknowledged by a worker that died before it started it"
        if entry.dispatch_uncertain:
            return "the broker's answer to its sender was lost, and so was the message"
        if truth.did(Act.REFUSED) and not truth.runs:
            return "its sender saw the error, and the message never arrived"
        if entry.retries:
            return "its process was killed while it published the retry"
        return "the broker popped it for a connection that died: it is in no queue and was handed to nobody"

    def _check_cancelled(self, truth: JobTruth, entry: JobHistoryEntry, events: list[JobEvent]) -> tuple[Finding, str]:
        if entry.cancel_requested_at is None:
            return Finding.WRONG, "nobody asked for its end"
        if not truth.finished:
            return Finding.RIGHT, ""
        if all(self._was_cut_short(run) or _was_killed_by_node(run, events) for run in truth.finished):
            return Finding.CUT_SHORT, "killed right after its last words"
        return Finding.WRONG, "it was cancelled, and a run of it returned"

    def _check_failed(self, job: PlannedJob, truth: JobTruth, entry: JobHistoryEntry) -> tuple[Finding, str]:
        end = entry.end
        assert end is not None
        if any(not self._was_cut_short(run) for run in truth.finished):
            return Finding.WRONG, f"it failed ({end.failure_kind}), and a run of it returned"
        last = truth.runs[-1] if truth.runs else None
        match end.failure_kind:
            case FailureKind.EXCEPTION:
                return _expect(last is not None and last.act is Act.RAISE, "its last run did not raise")
            case FailureKind.TIME_LIMIT:
                return _expect(job.kind is Kind.LIMIT and last is not None, "it has no time limit, or never started")
            case FailureKind.DISPATCH:
                return _expect(not truth.runs and truth.did(Act.REFUSED), "its sender saw no error, or it ran")
            case FailureKind.WORKER_LOST:
                return self._check_lost_worker(truth, entry)
            case _:
                return _expect(last is not None and last.act is Act.RAISE_AGAIN, f"nothing explains {end.failure_kind}")

    def _check_lost_worker(self, truth: JobTruth, entry: JobHistoryEntry) -> tuple[Finding, str]:
        last = truth.runs[-1] if truth.runs else None
        if last is None or last.start.retries < entry.retries:
            died = self._damage.worker_died(entry.run_worker_id)
            return _expect(died, f"it never started, and {entry.run_worker_id} never died")
        if last.act in (Act.START, Act.DIE):
            killed = last.act is Act.DIE or self._was_killed(last)
            return _expect(killed, f"nobody killed process {last.start.pid}, which ran it")
        return _expect(self._was_cut_short(last), f"its last run came to its end ({last.act})")

    def _was_killed(self, run: Run) -> bool:
        start = run.start
        return self._damage.killed_within(start.pid, start.at, math.inf) or self._damage.worker_died(start.node)

    # -- what a full disk excuses

    def _excuse(self, job: PlannedJob, truth: JobTruth, finding: Finding, reason: str) -> tuple[Finding, str]:
        """A defect that is the gap of a full disk, which the ledger must show."""
        boots = self._boots_on_full_disk(job, truth)
        if not boots:
            return finding, reason
        if boots & self._boots_with_gaps:
            return Finding.GAP, f"{reason}; the disk was full"
        if any(self._was_silenced(run) for run in truth.runs):
            return Finding.GAP_UNTOLD, f"{reason}; the disk was full"
        return finding, f"{reason}; the disk was full, and no gap is counted"

    def _boots_on_full_disk(self, job: PlannedJob, truth: JobTruth) -> set[str]:
        boots = set()
        for run in truth.runs:
            until = run.last.at if run.last else run.start.at + job.seconds + _DEATH_SEEN
            if run.start.node in self._damage.on_small_disk and self._disk_was_full(run.start.at, until):
                boots.add(self._boots.get(run.start.node or "", ""))
        for line in truth.sending:
            if line.act is Act.SENDING and self._disk_was_full(line.at, line.at + _DISK_AFTERMATH):
                boots.add(line.node or "")
        return boots

    def _disk_was_full(self, start: float, end: float) -> bool:
        return self._damage.disk_was_full(start - _DISK_AFTERMATH, end)

    def _was_silenced(self, run: Run) -> bool:
        if run.act is Act.DIE and run.last is not None and self._disk_was_full(run.last.at, run.last.at):
            return True
        return self._damage.silenced(run.start.pid, run.start.node)


def _expect(condition: bool, otherwise: str) -> tuple[Finding, str]:
    return (Finding.RIGHT, "") if condition else (Finding.WRONG, otherwise)


def _has_end(run: Run, events: list[JobEvent]) -> bool:
    if run.act is Act.RAISE_AGAIN:
        return any(
            event.retries == run.start.retries
            and (event.kind is EventKind.RETRYING or (event.end is not None and event.end.evidence is not Evidence.OWN))
            for event in events
        )
    ends = [event.end for event in events if event.end is not None and event.end.evidence is Evidence.OWN]
    return any(end.run_id == run.start.run_id for end in ends)


def _was_killed_by_node(run: Run, events: list[JobEvent]) -> bool:
    """Whether its own worker, which carried out a cancel, killed it right after its last words."""
    ends = [event.end for event in events if event.end is not None and event.end.evidence is Evidence.DEATH]
    return run.is_last_of_process and any(
        end.status is JobStatus.CANCELLED and end.run_id == run.start.run_id for end in ends
    )


def _is_silent_verdict(entry: JobHistoryEntry) -> bool:
    """Whether recovery concluded from what a node wrote, and kept quiet about what it could not write."""
    detail = (entry.end.detail if entry.end else None) or ""
    return "no end of the job" in detail and "could not be written" not in detail


def _comparable(entry: JobHistoryEntry) -> dict[str, object]:
    return {name: value for name, value in msgspec.structs.asdict(entry).items() if name not in _NOT_FROM_EVENTS}
