"""The fault harness in its short form, on both ledgers; and that it notices what a ledger could get wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.job import Evidence, FailureKind, JobEnd, JobStatus
from jobledger.history.job_history_store import JournalOffset
from jobledger.history.memory_store import MemoryJobHistoryStore

from .harness.comparison import Comparison, Finding
from .harness.damage import Damage, Window
from .harness.plan import Kind, PlannedJob, Sender, make_plan
from .harness.truth import Act, JobTruth, Line, Run, TruthWriter, read_truth

PROGRAM = Path(__file__).parent / "run_harness.py"
JOB = PlannedJob(job_id="job-1", kind=Kind.SUCCEED, sender=Sender.CONTROLLER, at=0, seconds=0, failures=1, priority=5)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ledger", ["sqlite", "postgresql"])
def test_two_hundred_jobs_under_random_faults_are_neither_lost_nor_wrong(ledger: str) -> None:
    command = [sys.executable, str(PROGRAM), "--jobs", "200", "--seed", "3", "--ledger", ledger]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_seed_always_makes_the_same_plan_and_another_one_another() -> None:
    assert make_plan(1, 50, 5) == make_plan(1, 50, 5)
    assert make_plan(1, 50, 5) != make_plan(2, 50, 5)
    assert {job.kind for job in make_plan(1, 50, 5)} == set(Kind)


def test_the_truth_of_a_killed_run_has_no_last_words(tmp_path: Path) -> None:
    writer = TruthWriter(tmp_path)
    writer.write("job-1", Act.START, run_id="a")
    writer.write("job-1", Act.END, run_id="a")
    writer.write("job-2", Act.START, run_id="b")

    truths = read_truth(tmp_path)

    [first], [second] = truths["job-1"].runs, truths["job-2"].runs
    assert (first.act, first.is_last_of_process) == (Act.END, False)
    assert (second.act, second.is_last_of_process) == (Act.START, True)


def line(act: Act, at: float, **fields: Any) -> Line:
    return Line(job_id=JOB.job_id, act=act, at=at, pid=7, run_id="run-1", node="node1@faults", **fields)


def truth_of(act: Act | None = None, *, is_last: bool = False) -> JobTruth:
    """A job that was sent and started at 10; and what it did at 11."""
    run = Run(start=line(Act.START, 10), last=line(act, 11) if act else None, is_last_of_process=is_last)
    return JobTruth(runs=[run], sending=[Line(job_id=JOB.job_id, act=Act.SENT, at=9, pid=3)])


UNSTARTED = JobTruth(sending=[Line(job_id=JOB.job_id, act=Act.SENT, at=9, pid=3)])


def event(kind: EventKind, **fields: Any) -> JobEvent:
    return JobEvent(kind=kind, job_id=JOB.job_id, at=now(), run_id="run-1", worker_id="node1@faults", **fields)


def ended(status: JobStatus, kind: FailureKind | None = None, evidence: Evidence = Evidence.OWN) -> JobEvent:
    end = JobEnd(status=status, at=now(), run_id="run-1", failure_kind=kind, evidence=evidence)
    return event(EventKind.ENDED, end=end)


STARTED = event(EventKind.STARTED)
PUBLISHED = JobEvent(kind=EventKind.PUBLISHED, job_id=JOB.job_id, at=now())
COMPLETED = ended(JobStatus.COMPLETED)
LOST_WORKER = ended(JobStatus.FAILED, FailureKind.WORKER_LOST, Evidence.VERDICT)


def judge(truth: JobTruth, *events: JobEvent, damage: Damage | None = None, dropped: int = 0) -> Finding:
    store = MemoryJobHistoryStore()
    store.append(events, JournalOffset(journal=".j", start=0, end=1, dropped=dropped))
    [judgement] = Comparison(store, [JOB], {JOB.job_id: truth}, damage or Damage()).judge_all()
    return judgement.finding


@pytest.mark.parametrize(
    ("truth", "events", "finding"),
    [
        (truth_of(Act.END), [STARTED, COMPLETED], Finding.RIGHT),
        (truth_of(Act.END), [], Finding.LOST),
        (truth_of(Act.END), [COMPLETED], Finding.LOST),
        (truth_of(Act.END), [STARTED, LOST_WORKER], Finding.WRONG),
        (truth_of(Act.END), [STARTED], Finding.WRONG),
        (truth_of(Act.END), [STARTED, STARTED, COMPLETED], Finding.WRONG),
        (truth_of(Act.RAISE), [STARTED, COMPLETED], Finding.WRONG),
        (truth_of(Act.RAISE), [STARTED, ended(JobStatus.FAILED, FailureKind.EXCEPTION)], Finding.RIGHT),
        (truth_of(), [STARTED, COMPLETED], Finding.WRONG),
        (truth_of(), [STARTED, LOST_WORKER], Finding.WRONG),
        (truth_of(), [STARTED, ended(JobStatus.CANCELLED)], Finding.WRONG),
        (truth_of(Act.DIE), [STARTED, LOST_WORKER], Finding.RIGHT),
        (UNSTARTED, [COMPLETED], Finding.WRONG),
        (UNSTARTED, [LOST_WORKER], Finding.WRONG),
        (UNSTARTED, [PUBLISHED], Finding.UNDECIDED),
        (UNSTARTED, [], Finding.LOST),
        (JobTruth(), [], Finding.RIGHT),
    ],
)
def test_the_harness_tells_a_ledger_that_is_right_from_one_that_is_not(
    truth: JobTruth, events: list[JobEvent], finding: Finding
) -> None:
    assert judge(truth, *events) is finding


def test_only_a_kill_right_after_its_last_words_excuses_a_run_whose_end_is_missing() -> None:
    damage = Damage()
    truth = truth_of(Act.END, is_last=True)
    assert judge(truth, STARTED, LOST_WORKER, damage=damage) is Finding.WRONG

    damage.note_kill(7)
    [moment] = damage._killed[7]
    for distance, finding in ((0.5, Finding.CUT_SHORT), (5.0, Finding.WRONG), (-0.5, Finding.WRONG)):
        last = line(Act.END, moment - distance)
        truth = JobTruth(runs=[Run(start=line(Act.START, 1), last=last, is_last_of_process=True)])
        assert judge(truth, STARTED, LOST_WORKER, damage=damage) is finding


def test_a_full_disk_excuses_only_what_the_ledger_counts() -> None:
    damage = Damage()
    damage.on_small_disk.add("node1@faults")
    truth = truth_of(Act.END)
    assert judge(truth, COMPLETED, damage=damage, dropped=1) is Finding.LOST

    damage.disk_windows.append(Window(9.5, 10.5))
    assert judge(truth, COMPLETED, damage=damage, dropped=1) is Finding.GAP
    assert judge(truth, COMPLETED, damage=damage) is Finding.LOST
