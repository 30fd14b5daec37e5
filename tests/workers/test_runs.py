"""A node's memory of its runs."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

from jobledger.workers.run_board import RunBoard, RunState
from jobledger.workers.runs import RunKey, Runs


class Message:
    """Stands for a request, which holds a job's whole message."""


def test_runs_that_ended_do_not_keep_their_messages(tmp_path: Path) -> None:
    board = RunBoard(tmp_path / "board")
    runs = Runs(board, ttl=60)
    kept: weakref.WeakSet[Message] = weakref.WeakSet()

    for number in range(500):
        message = Message()
        kept.add(message)
        run = runs.hand_over(RunKey(str(number), 0, 0), "run", message, None)
        assert run.slot is not None
        run.slot.state = RunState.ENDED
    del message, run
    gc.collect()

    assert len(kept) <= 64
    assert all(runs.is_copy(RunKey(str(number), 0, 0), redelivered=True) for number in range(500))


def test_runs_that_have_not_ended_are_kept_however_many_they_are(tmp_path: Path) -> None:
    runs = Runs(RunBoard(tmp_path / "board"), ttl=60)
    keys = [RunKey(str(number), 0, 0) for number in range(300)]

    for key in keys:
        runs.hand_over(key, "run", Message(), None)

    assert all(runs.of_job(key.job_id) is not None for key in keys)
    assert [run.key for run in runs.not_started({"7", "none"})] == [keys[7]]
