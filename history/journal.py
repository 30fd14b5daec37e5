"""The append-only file that each process writes its events to.

A journal survives ``kill -9`` of anything on the host and any outage of the ledger or the broker; a full disk and,
without fsync, a power cut it does not. Its name is ``<boot id>.<UUIDv7>.jsonl``, so that all journals of one boot are
found by their names, in the order of their making. Its writer holds a ``flock`` on it for life: a lock that can be
taken is the proof that the writer is gone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import logging
import os
import threading
import time
import weakref
from collections import deque
from pathlib import Path
from typing import Final

import msgspec

from .event import JobEvent
from .fork_guard import fork_guard
from .ids import new_id

logger = logging.getLogger("jobledger.journal")

SUFFIX: Final = ".jsonl"
#: What a journal is called until it is locked.
UNBORN_SUFFIX: Final = ".new"
#: Lines that are not events begin with this; none of an event's fields does.
CONTROL_PREFIX: Final = b'{"@'

_LOG_INTERVAL: Final = 60.0
_REOPEN_INTERVAL: Final = 1.0
_LOOK_INTERVAL: Final = 1.0
#: Seconds after which a file that is still called new has lost its writer.
_UNBORN_LIFE: Final = 60.0
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNENCODABLE: Final = (msgspec.EncodeError, TypeError, ValueError, OverflowError, RecursionError, MemoryError)
_writers: weakref.WeakSet[Journal] = weakref.WeakSet()


class Journal:
    """The journal of this process; safe for all of its threads, and left alone by the children it forks.

    ``append`` never raises: what cannot be written is dropped, counted in ``dropped``, and told in one log line a
    minute. The count stands in the file before the next event that fits.

    A signal handler may append too, also in the middle of an append, and may raise: the interrupted event is
    written all the same, once, and then the handler's exception goes on.
    """

    def __init__(self, directory: Path, boot_id: str, *, segment: int, fsync: bool = False) -> None:
        self.boot_id = boot_id
        #: Events that this process could not write since it started.
        self.dropped = 0
        self._directory = directory.absolute()
        self._segment = segment
        self._fsync = fsync
        self._encode = msgspec.json.Encoder().encode
        self._logged_at = -_LOG_INTERVAL
        self._start_afresh()
        _writers.add(self)

    def __del__(self) -> None:
        self._close_segment()

    def open(self) -> None:
        """Create the file now, rather than at the first event; raises ``OSError`` when that is not possible."""
        with self._lock:
            if self._file is None:
                self._open_segment()

    def append(self, event: JobEvent) -> bool:
        """Write one event; return whether it is in the file, or will be when the append it interrupts goes on."""
        try:
            line = self._encode(event) + b"\n"
        except _UNENCODABLE as error:
            with self._lock:
                self._count_dropped()
            return self._complain(error)
        with self._lock:
            self._waiting.append(line)
            problem = None if self._writing else self._write_waiting()
        return problem is None or self._complain(problem)

    def close(self) -> None:
        """Close the file and with it give up the lock; a later event starts a new file."""
        with self._lock:
            self._closing = True
            if self._writing:
                return
            if self._untold:
                self._waiting.append(b"")
            self._write_waiting()

    def _start_afresh(self) -> None:
        self._lock = threading.RLock()
        self._file: io.FileIO | None = None
        #: Bytes of whole lines in the file; whatever lies behind them is torn.
        self._size = 0
        self._waiting: deque[bytes] = deque()
        self._writing = False
        #: Whether to close the file when the running write, which a signal handler interrupted, is done.
        self._closing = False
        #: What the running write adds to the file; empty between two writes.
        self._intended = b""
        #: Drops that the file does not tell yet, and those it does.
        self._untold = 0
        self._told = 0
        #: The number that the running write tells; 0 while it writes an event.
        self._telling = 0
        self._reopen_at = 0.0
        self._look_at = 0.0

    def _write_waiting(self) -> OSError | None:
        self._writing = True
        try:
            return self._drain()
        except BaseException:
            # A signal handler raised (a soft time limit, SystemExit). The event must not go with it.
            self._settle()
            self._drain()
            raise
        finally:
            self._writing = False
            if self._closing:
                self._closing = False
                self._close_segment()

    def _drain(self) -> OSError | None:
        problem = None
        while self._waiting:
            try:
                self._write(self._waiting[0])
            except OSError as error:
                problem = error
                self._cut_back()
                if self._waiting.popleft():
                    self._count_dropped()
        return problem

    def _write(self, line: bytes) -> None:
        try:
            self._write_whole(self._writable(), line)
        except OSError as error:
            if error.errno in _DISK_FULL or not self._intended:
                raise
            # This file takes no more: it reached a limit, or somebody closed the descriptor. Another one may.
            self._cut_back()
            self._close_segment()
            self._write_whole(self._writable(), line)

    def _write_whole(self, file: io.FileIO, line: bytes) -> None:
        if self._untold:
            # By itself: a reader may have a whole line at once, so none is ever cut off with a torn one behind it.
            self._telling = self._told + self._untold
            self._put(file, b'%sdropped":%d}\n' % (CONTROL_PREFIX, self._telling))
        self._put(file, line)

    def _put(self, file: io.FileIO, data: bytes) -> None:
        self._intended = data
        written = file.write(data)
        while written < len(data):
            written += file.write(data[written:])
        self._account()
        if self._fsync:
            self._flush(file)

    def _flush(self, file: io.FileIO) -> None:
        """Where that fails the line stays: a reader may have it already."""
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if self._may_log():
                logger.error("Job history: the journal could not be flushed, a power cut may lose its end (%s)", error)

    def _account(self) -> None:
        data, self._intended = self._intended, b""
        self._size += len(data)
        if self._telling:
            self._untold -= self._telling - self._told
            self._told, self._telling = self._telling, 0
        else:
            self._waiting.popleft()

    def _settle(self) -> None:
        """Find out from the file how far the interrupted write came."""
        if self._file is None or not self._intended:
            return
        if os.fstat(self._file.fileno()).st_size == self._size + len(self._intended):
            self._account()
        else:
            self._cut_back()

    def _cut_back(self) -> None:
        """Cut off a torn half, or the next event would be glued to it; where that fails, leave the file to it."""
        self._intended, self._telling = b"", 0
        if self._file is None:
            return
        try:
            self._file.truncate(self._size)
        except OSError:
            self._close_segment()

    def _writable(self) -> io.FileIO:
        self._look_after_file()
        if self._file is None or self._size >= self._segment:
            self._next_segment()
        if self._file is None:
            raise OSError("the journal directory could not be written a moment ago")
        return self._file

    def _look_after_file(self) -> None:
        """Once a second: leave a file that somebody deleted, for instance with its directory."""
        if self._file is None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_INTERVAL
        with contextlib.suppress(OSError):
            if os.fstat(self._file.fileno()).st_nlink == 0:
                self._close_segment()

    def _next_segment(self) -> None:
        if time.monotonic() < self._reopen_at:
            return
        try:
            self._open_segment()
        except OSError:
            self._reopen_at = time.monotonic() + _REOPEN_INTERVAL
            if self._file is None:
                raise

    def _open_segment(self) -> None:
        """Open the next file before the full one is closed, so that the boot is never seen without a lock."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / f"{self.boot_id}.{new_id()}{SUFFIX}"
        hidden = path.with_suffix(UNBORN_SUFFIX)
        with fork_guard:
            # Not a bare descriptor: an exception between its opening and its noting would leave that locked for ever.
            file = io.FileIO(hidden, "ab")
            try:
                os.fchmod(file.fileno(), 0o600)
                fcntl.flock(file, fcntl.LOCK_EX)
                hidden.rename(path)
            except OSError:
                file.close()
                hidden.unlink(missing_ok=True)
                raise
            self._close_segment()
            self._file, self._size, self._told = file, 0, 0

    def _close_segment(self) -> None:
        with fork_guard, contextlib.suppress(OSError):
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def _count_dropped(self) -> None:
        self.dropped += 1
        self._untold += 1

    def _complain(self, error: Exception) -> bool:
        if self._may_log():
            logger.error("Job history is incomplete: %d events could not be written so far (%s)", self.dropped, error)
        return False

    def _may_log(self) -> bool:
        if time.monotonic() - self._logged_at < _LOG_INTERVAL:
            return False
        self._logged_at = time.monotonic()
        return True

    def _leave_to_parent(self) -> None:
        """In a forked child: a lock that the child inherited would outlive the parent, so close it at once."""
        self._close_segment()
        self._start_afresh()
        self.dropped = 0


def _leave_all_to_parent() -> None:
    for journal in list(_writers):
        journal._leave_to_parent()


os.register_at_fork(after_in_child=_leave_all_to_parent)


class JournalFile:
    """A journal as its reader sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name.removesuffix(SUFFIX)
        self.boot_id = path.name.split(".", 1)[0]

    def size(self) -> int:
        """Return the bytes written so far; 0 for a file that is gone."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, offset: int, limit: int) -> bytes:
        """Return whole lines from ``offset`` on: about ``limit`` bytes, but at least one line if one is complete."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(offset)
            chunk = file.read(limit)
            while chunk and b"\n" not in chunk and (more := file.read(limit)):
                chunk += more
        return chunk[: chunk.rfind(b"\n") + 1]

    def read_tail(self, offset: int) -> bytes:
        """Return everything from ``offset`` on, a torn last line included."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read()

    def writer_is_gone(self) -> bool:
        """Whether the writer has closed the file or died: then nothing more will ever come."""
        with self.path.open("rb", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def delete(self) -> None:
        """Remove the file, if it is still there."""
        self.path.unlink(missing_ok=True)


def journal_files(directory: Path, boot_id: str | None = None) -> list[JournalFile]:
    """Return the journals of a directory, or of one boot; of each boot the oldest first."""
    prefix = "" if boot_id is None else f"{boot_id}."
    with contextlib.suppress(FileNotFoundError):
        paths = [path for path in directory.iterdir() if path.name.startswith(prefix) and path.suffix == SUFFIX]
        return [JournalFile(path) for path in sorted(paths)]
    return []


def journal_ends(directory: Path, boot_id: str) -> dict[str, int]:
    """Return up to where each journal of a boot is written: what a barrier waits for."""
    return {file.name: file.size() for file in journal_files(directory, boot_id)}


def remove_unborn(directory: Path) -> None:
    """Remove the files of writers that died between making a journal and naming it; such a file is always empty."""
    oldest = time.time() - _UNBORN_LIFE
    for path in directory.glob(f"*{UNBORN_SUFFIX}"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()


def home_of(directory: Path) -> str:
    """Return the id of a journal directory, made once; nodes carry it, so that one agent knows which are its own."""
    path = directory / "home"
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_once(path, new_id())
    return path.read_text()


def write_once(path: Path, text: str) -> None:
    """Write a file that is whole from its first moment, for its owner only; one that is there already stays."""
    hidden = path.with_name(f".{path.name}.{new_id()}")
    try:
        fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
