"""The shared memory between a node and its pool."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from jobledger.workers.run_board import RunBoard, RunState, open_slot

CHILD = """
import sys
from jobledger.workers.run_board import open_slot
slot = open_slot(sys.argv[1], int(sys.argv[2]))
print(slot.is_cancelled(), slot.state.name)
slot.start()
"""


def test_another_process_sees_the_cancel_and_says_where_it_is(tmp_path: Path) -> None:
    board = RunBoard(tmp_path / "board")
    slot = board.take()
    assert slot is not None
    slot.cancel()

    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(board.path), str(slot.index)], stdout=subprocess.PIPE, text=True
    )
    output, _ = child.communicate()

    assert output.split() == ["True", "HANDED_OVER"]
    assert (slot.state, slot.pid) == (RunState.STARTED, child.pid)


def test_a_slot_that_was_given_back_is_clean_again(tmp_path: Path) -> None:
    board = RunBoard(tmp_path / "board")
    first = board.take()
    assert first is not None
    first.cancel()
    first.start()
    assert first.pid == os.getpid()

    board.give_back(first)
    again = board.take()

    assert again is not None
    assert (again.index, again.is_cancelled(), again.pid) == (first.index, False, 0)


def test_a_full_board_gives_nothing_and_says_so(tmp_path: Path) -> None:
    board = RunBoard(tmp_path / "board")
    slots = [slot for _ in range(5_000) if (slot := board.take())]

    assert len({slot.index for slot in slots}) == len(slots) < 5_000
    assert board.take() is None


def test_a_board_without_a_file_works_inside_the_process(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    board = RunBoard(tmp_path / "file" / "board")
    slot = board.take()
    assert slot is not None

    slot.cancel()

    assert open_slot(str(board.path), slot.index).is_cancelled()
