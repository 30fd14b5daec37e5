"""A small shared memory between a node and its pool: which run is where, and which one is to stop.

The node gives each run a slot before it hands it over; the process that runs the job writes its pid and the run's
state there; the node sets the cancel flag. One file, mapped by all of them, works for forked and spawned children
and for threads alike, and looking at the flag costs no system call.
"""

from __future__ import annotations

import mmap
import os
import struct
from enum import IntEnum
from pathlib import Path
from typing import Final

_SLOTS: Final = 1_024
_SIZE: Final = 8
_CANCEL: Final = 1
_PID: Final = struct.Struct("<I")
_PID_AT: Final = 4


class RunState(IntEnum):
    """Where a run stands, as the process that runs it says."""

    #: The slot is nobody's.
    FREE = 0
    #: The pool has it; no process has started it yet.
    HANDED_OVER = 1
    #: A process runs it.
    STARTED = 2
    #: It ended, and its end is in the journal.
    ENDED = 3


class RunSlot:
    """One run's place on a board."""

    def __init__(self, board: mmap.mmap, index: int) -> None:
        self._board = board
        self._at = index * _SIZE
        self.index = index

    @property
    def state(self) -> RunState:
        """Where the run stands."""
        return RunState(self._board[self._at])

    @state.setter
    def state(self, state: RunState) -> None:
        self._board[self._at] = state

    @property
    def pid(self) -> int:
        """The process that runs it; 0 before it starts."""
        pid: int = _PID.unpack_from(self._board, self._at + _PID_AT)[0]
        return pid

    def start(self) -> None:
        """Say that this process runs it now."""
        _PID.pack_into(self._board, self._at + _PID_AT, os.getpid())
        self.state = RunState.STARTED

    def cancel(self) -> None:
        """Tell the run to stop."""
        self._board[self._at + _CANCEL] = 1

    def is_cancelled(self) -> bool:
        """Whether the run was told to stop."""
        return self._board[self._at + _CANCEL] != 0

    def clear(self) -> None:
        """Make the slot nobody's."""
        self._board[self._at : self._at + _SIZE] = bytes(_SIZE)


class RunBoard:
    """The board of one node; only its main process gives out slots."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._memory = _map_file(path)
        _open_boards[str(path)] = self._memory
        self._free = list(range(_SLOTS - 1, -1, -1))

    def take(self) -> RunSlot | None:
        """Return a free slot, marked as handed over; ``None`` when all are taken."""
        if not self._free:
            return None
        slot = RunSlot(self._memory, self._free.pop())
        slot.clear()
        slot.state = RunState.HANDED_OVER
        return slot

    def give_back(self, slot: RunSlot) -> None:
        """Take a slot back whose run has ended."""
        slot.clear()
        self._free.append(slot.index)

    def remove(self) -> None:
        """Delete the file; those who have it mapped keep it."""
        self.path.unlink(missing_ok=True)


def _map_file(path: Path) -> mmap.mmap:
    """Map a file whose blocks are really there: touching one that a full disk cannot hold would kill the process.

    Where the file cannot be made, memory that forked children inherit does for them and for threads.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return mmap.mmap(-1, _SLOTS * _SIZE)
    try:
        os.write(fd, bytes(_SLOTS * _SIZE))
        return mmap.mmap(fd, _SLOTS * _SIZE)
    except (OSError, ValueError):
        path.unlink()
        return mmap.mmap(-1, _SLOTS * _SIZE)
    finally:
        os.close(fd)


_open_boards: dict[str, mmap.mmap] = {}


def open_slot(path: str, index: int) -> RunSlot:
    """Return a slot of another process's board; the mapping is kept for the next call.

    Raises:
        OSError: when the board is gone.
    """
    board = _open_boards.get(path)
    if board is None:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            board = mmap.mmap(fd, 0)
        finally:
            os.close(fd)
        _open_boards[path] = board
    return RunSlot(board, index)
