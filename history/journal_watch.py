"""Wakes the agent when a journal changes, so that it need not look at every file many times a second.

The kernel tells (inotify), where it can: one wake for the first write after an idle time, and the name of each journal
whose writer has closed it or died. Elsewhere, and on file systems that other hosts write to, looking has to do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import sys
from pathlib import Path
from typing import Any, Final

#: Seconds between two looks while nothing happens: with a watch, and without one.
_WATCHED: Final = 1.0
_UNWATCHED: Final = 0.02

_IN_MODIFY: Final = 0x2
_IN_CLOSE_WRITE: Final = 0x8
_IN_MOVED_TO: Final = 0x80
_IN_ONESHOT: Final = 0x80000000
#: Of an event: the watch, what happened, a cookie, and the length of the name that follows.
_EVENT: Final = struct.Struct("iIII")
_EVENTS: Final = 64 * 1024


class JournalWatch:
    """Watches one journal directory; owns its descriptors until ``close``. ``ring`` may be called by any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = os.fsencode(directory)
        self._is_armed = False
        self._bell, self._rope = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._libc = _libc_with_inotify()
        #: Told once, then armed again: a busy journal must not cost its writer anything.
        self._news = self._new_queue()
        #: Told each time: a writer that is gone, a journal that came.
        self._ends = self._new_queue()
        self._poll = select.poll()
        for descriptor in (self._bell, self._news, self._ends):
            if descriptor >= 0:
                self._poll.register(descriptor, select.POLLIN)

    def arm(self) -> None:
        """Have the next change told; what changed before must be looked for after this."""
        self._is_armed = self._add(self._news, _IN_MODIFY | _IN_ONESHOT) and self._add(
            self._ends, _IN_CLOSE_WRITE | _IN_MOVED_TO
        )

    def wait_for_news(self, seconds: float) -> None:
        """Wait until something changes or the bell rings, ``seconds`` at most."""
        longest = _WATCHED if self._is_armed else _UNWATCHED
        self._poll.poll(max(0.0, min(seconds, longest)) * 1_000)
        _drain(self._bell)
        _drain(self._news)

    def wait_for_bell(self, seconds: float) -> None:
        """Wait whatever the journals do, until the bell rings, ``seconds`` at most."""
        select.select([self._bell], [], [], max(0.0, seconds))
        _drain(self._bell)

    def take_ended(self) -> set[str]:
        """Return the names of files whose writers went since the last call, as far as that was told."""
        return _names(_drain(self._ends))

    def ring(self) -> None:
        """End the wait of the thread that waits, or the next one."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._rope, b".")

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in (self._bell, self._rope, self._news, self._ends):
            if descriptor >= 0:
                os.close(descriptor)

    def _new_queue(self) -> int:
        return -1 if self._libc is None else int(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def _add(self, queue: int, changes: int) -> bool:
        return queue >= 0 and self._libc.inotify_add_watch(queue, self._directory, changes) >= 0


def _libc_with_inotify() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "inotify_init1"):
        return None
    libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
    return libc


def _drain(descriptor: int) -> bytes:
    if descriptor < 0:
        return b""
    try:
        return os.read(descriptor, _EVENTS)
    except BlockingIOError:
        return b""


def _names(events: bytes) -> set[str]:
    names = set()
    position = 0
    while position < len(events):
        _, _, _, length = _EVENT.unpack_from(events, position)
        position += _EVENT.size
        names.add(os.fsdecode(events[position : position + length].rstrip(b"\0")))
        position += length
    return names
