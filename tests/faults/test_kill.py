"""kill -9 of a pool process, of a worker, and of everything: what ended is recorded as it ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from jobledger.controller.leader import Leader
from jobledger.controller.recovery import Recovery
from jobledger.history.job import FailureKind, JobStatus


def lead(site: Any) -> Leader:
    return Leader(site.controller, site.store, Recovery(site.store, site.controller.queues))


def submit_notes(site: Any, truth: Path, count: int, seconds: float = 0.02) -> list[str]:
    """Submit jobs that write their number to the truth when they run."""
    return [site.controller.submit("jobs.note", [str(truth), str(number), seconds]) for number in range(count)]


def ended_in_truth(truth: Path) -> int:
    return len(truth.read_text().split()) if truth.exists() else 0


def agent_pids(site: Any) -> list[int]:
    """The agents of this data directory, found by their environment."""
    wanted = f"JOBLEDGER_DATA_DIR={site.data_dir}".encode()
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                command, environment = (directory / "cmdline").read_bytes(), (directory / "environ").read_bytes()
            except OSError:
                continue
            if b"jobledger.history.agent" in command and wanted in environment.split(b"\0"):
                found.append(int(directory.name))
    return found


def test_a_killed_pool_process_fails_its_job_and_no_other(site: Any, eventually: Any, tmp_path: Path) -> None:
    worker = site.start_worker(concurrency=2)
    gate = tmp_path / "gate"
    victims = [site.controller.submit("jobs.wait_for", [str(gate)]) for _ in range(2)]
    for job_id in victims:
        site.wait_for_status(job_id, JobStatus.RUNNING)

    os.kill(worker.children()[0], signal.SIGKILL)

    eventually(lambda: JobStatus.FAILED in {site.status(job_id) for job_id in victims})
    gate.touch()
    entries = [site.wait_for_end(job_id) for job_id in victims]
    assert sorted(entry.status for entry in entries) == [JobStatus.COMPLETED, JobStatus.FAILED]
    [failed] = [entry for entry in entries if entry.status is JobStatus.FAILED]
    assert failed.end.failure_kind is FailureKind.WORKER_LOST


def test_a_killed_worker_leaves_no_event_behind_and_its_jobs_are_interrupted(
    site: Any, eventually: Any, tmp_path: Path
) -> None:
    truth, gate = tmp_path / "truth", tmp_path / "gate"
    worker = site.start_worker(concurrency=2)
    done = submit_notes(site, truth, 50, seconds=0)
    held = [site.controller.submit("jobs.wait_for", [str(gate)], priority="low") for _ in range(2)]
    for job_id in held:
        site.wait_for_status(job_id, JobStatus.RUNNING)

    worker.kill()

    site.wait_for_node_end(worker)
    assert {site.status(job_id) for job_id in done} == {JobStatus.COMPLETED}
    assert {site.status(job_id) for job_id in held} == {JobStatus.RUNNING}
    lead(site).work_once()
    for job_id in held:
        entry = site.store.get_job(job_id)
        assert (entry.status, entry.end.failure_kind) == (JobStatus.FAILED, FailureKind.WORKER_LOST)
        assert worker.name in entry.last_error


def test_after_everything_was_killed_the_next_start_finds_what_was_written(
    site: Any, eventually: Any, tmp_path: Path
) -> None:
    """Worker, pool and agent die in the same moment, in the middle of the work; a new worker starts."""
    truth = tmp_path / "truth"
    worker = site.start_worker(concurrency=2)
    jobs = submit_notes(site, truth, 200)
    eventually(lambda: ended_in_truth(truth) >= 60)

    worker.kill_everything()
    for pid in agent_pids(site):
        os.kill(pid, signal.SIGKILL)
    running_at_death = ended_in_truth(truth)

    site.start_worker(concurrency=2)
    leader = lead(site)
    eventually(lambda: leader.work_once() and all(site.status(job).is_terminal for job in jobs), 30)
    entries = [site.store.get_job(job_id) for job_id in jobs]
    completed = [entry for entry in entries if entry.status is JobStatus.COMPLETED]
    interrupted = [entry for entry in entries if entry.status is JobStatus.FAILED]
    assert len(completed) + len(interrupted) == 200
    assert {entry.end.failure_kind for entry in interrupted} <= {FailureKind.WORKER_LOST}
    assert len(interrupted) <= 2
    assert running_at_death >= 60
    ran = truth.read_text().split()
    assert {str(jobs.index(entry.job_id)) for entry in completed} <= set(ran)


def test_a_killed_agent_is_started_again_and_goes_on_where_the_ledger_stands(
    site: Any, eventually: Any, tmp_path: Path
) -> None:
    truth = tmp_path / "truth"
    site.start_worker(concurrency=2)
    jobs = submit_notes(site, truth, 300, seconds=0.005)
    for _ in range(3):
        [agent] = eventually(lambda: agent_pids(site))
        os.kill(agent, signal.SIGKILL)
        eventually(lambda dead=agent: agent_pids(site) not in ([], [dead]), message="no new agent")

    eventually(lambda: all(site.status(job) is JobStatus.COMPLETED for job in jobs), 30)
    for job_id in jobs:
        assert len(site.store.get_job_events(job_id)) == 4
