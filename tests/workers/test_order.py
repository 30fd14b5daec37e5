"""Strict order on one node: by priority, and first in first out inside a level."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from jobledger.history.job import JobStatus

POOLS = pytest.mark.parametrize("pool", ["prefork", "threads"])


def hold_the_slot(site: Any, gate: Path) -> str:
    """Keep the only slot busy until the gate opens, so that everything submitted meanwhile waits in the broker."""
    job_id: str = site.controller.submit("jobs.wait_for", [str(gate)])
    site.wait_for_status(job_id, JobStatus.RUNNING)
    return job_id


@POOLS
def test_two_hundred_mixed_jobs_run_by_priority_and_in_the_order_of_their_submission(
    site: Any, tmp_path: Path, eventually: Any, pool: str
) -> None:
    gate, truth = tmp_path / "gate", tmp_path / "truth"
    site.start_worker(pool=pool)
    hold_the_slot(site, gate)
    choose = random.Random(pool)
    levels = [choose.choice(["high", "normal", "low", *range(10)]) for _ in range(200)]
    wire = {"high": 2, "normal": 5, "low": 8}

    for number, level in enumerate(levels):
        site.controller.submit("jobs.note", [str(truth), str(number)], priority=level)
    gate.touch()

    eventually(lambda: truth.exists() and len(truth.read_text().split()) == 200, 60)
    expected = sorted(range(200), key=lambda number: (wire.get(levels[number], levels[number]), number))
    assert [int(line) for line in truth.read_text().split()] == expected


@POOLS
def test_a_late_urgent_job_overtakes_all_that_wait(site: Any, tmp_path: Path, eventually: Any, pool: str) -> None:
    gate, truth = tmp_path / "gate", tmp_path / "truth"
    site.start_worker(pool=pool)
    hold_the_slot(site, gate)
    for number in range(10):
        site.controller.submit("jobs.note", [str(truth), f"low{number}"], priority="low")
    second_gate = tmp_path / "second-gate"
    site.controller.submit("jobs.wait_for", [str(second_gate), str(truth)], priority="normal")

    gate.touch()
    eventually(lambda: truth.exists() and truth.read_text() == "started\n")
    site.controller.submit("jobs.note", [str(truth), "urgent"], priority="high")
    second_gate.touch()

    eventually(lambda: len(truth.read_text().split()) == 13)
    assert truth.read_text().split() == ["started", "ended", "urgent", *(f"low{number}" for number in range(10))]


@pytest.mark.parametrize("call", ["tasks['jobs.note'].delay({args})", "send_task('jobs.note', [{args}])"])
def test_a_job_sent_without_a_priority_is_a_normal_one(site: Any, tmp_path: Path, eventually: Any, call: str) -> None:
    gate, truth = tmp_path / "gate", tmp_path / "truth"
    site.start_worker()
    hold_the_slot(site, gate)
    site.run_python("import jobs; jobs.app." + call.format(args=f"{str(truth)!r}, 'plain'"))
    site.controller.submit("jobs.note", [str(truth), "urgent"], priority="high")
    site.controller.submit("jobs.note", [str(truth), "later"], priority="low")

    gate.touch()

    eventually(lambda: truth.exists() and len(truth.read_text().split()) == 3)
    assert truth.read_text().split() == ["urgent", "plain", "later"]


def test_a_pool_of_threads_starts_the_next_job_at_once(site: Any, tmp_path: Path, eventually: Any) -> None:
    """Without a woken event loop twenty jobs would take twenty seconds."""
    site.start_worker(pool="threads")

    jobs = [site.controller.submit("jobs.add", [number, number]) for number in range(20)]

    eventually(lambda: all(site.status(job) is JobStatus.COMPLETED for job in jobs), 8)
