"""What a prefork pool drops when the connection to the broker is lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery.concurrency.prefork import TaskPool
from jobledger.workers.process_pool import tell_dropped
from jobledger.workers.run_board import RunBoard, RunState
from jobledger.workers.runs import RunKey, Runs


def pool_job(job_id: str, *, accepted: bool = False, process: bool | None = None) -> Any:
    """Return what billiard keeps of a job; ``process`` says whether the process that it was written to lives."""
    writer = None if process is None else SimpleNamespace(_is_alive=lambda: process)
    return SimpleNamespace(correlation_id=job_id, _accepted=accepted, _write_to=writer)


def test_only_jobs_that_no_living_process_got_are_told() -> None:
    jobs = [
        pool_job("runs", accepted=True, process=True),
        pool_job("is in the pipe", process=True),
        pool_job("was in a dead one's pipe", process=False),
        pool_job("waits for a process"),
    ]
    pool = TaskPool(1)
    told: list[Any] = []
    pool._pool = SimpleNamespace(_cache=dict(enumerate(jobs)))
    pool.flush = pool._pool._cache.clear

    tell_dropped(pool, told.append)
    pool.flush()

    assert told == [{"was in a dead one's pipe", "waits for a process"}]
    assert pool._pool._cache == {}


def test_the_second_delivery_of_a_dropped_job_is_no_duplicate_and_that_of_a_started_one_is(tmp_path: Any) -> None:
    runs = Runs(RunBoard(tmp_path / "board"), ttl=60)
    dropped, started = RunKey("dropped", 0, 0), RunKey("started", 0, 0)
    runs.hand_over(dropped, "run", None, None)
    slot = runs.hand_over(started, "run", None, None).slot
    assert slot is not None
    slot.state = RunState.STARTED

    for run in runs.not_started({"dropped", "started"}):
        runs.forget(run.key)

    assert not runs.is_copy(dropped, redelivered=True)
    assert runs.is_copy(started, redelivered=False)
