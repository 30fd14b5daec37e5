"""The file to which jobs go before they are removed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from ..errors import ExportFailed
from .event_batch import LOG_LINES
from .export import flush_directory
from .export_format import json_lines
from .exported_job import EVENTS, LOG, Record, exported, exported_events
from .job import JobHistoryEntry
from .job_history_store import JobHistoryStore

#: How each line of an archive begins; no other file is touched.
_BEGINNING: Final = b'{"job_id":'


class JobArchive:
    """A file of JSON lines that only grows: one line for each job, with its events and its log, without its secrets.

    A job that was added and then not removed is added again the next time: the last line counts. Closed by its owner.
    """

    def __init__(self, path: Path) -> None:
        """Open the archive, made for this user only if there is none; a line that a crash tore is cut off.

        Raises:
            ExportFailed: when it cannot be written, is no archive, or another process writes to it.
        """
        self._path = path
        self._require_regular()
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._failure(error) from error
        try:
            self._take()
            flush_directory(path.parent)
        except OSError as error:
            os.close(self._fd)
            raise self._failure(error) from error
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, store: JobHistoryStore, entries: Sequence[JobHistoryEntry]) -> None:
        """Add jobs; when this returns they are on the disk.

        Raises:
            ExportFailed: when they are not; the file is as it was before.
        """
        lines = json_lines(_records(store, entries))
        size = os.fstat(self._fd).st_size
        try:
            _write_all(self._fd, lines)
            os.fsync(self._fd)
        except OSError as error:
            self._cut_back(size)
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file; one to which nothing was ever added is removed."""
        if os.fstat(self._fd).st_size == 0:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)

    def _require_regular(self) -> None:
        if self._path.exists() and not self._path.is_file():
            raise ExportFailed(f"{self._path} is no file; choose another.")

    def _take(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportFailed(f"{self._path} is being written by another process.") from None
        size = os.fstat(self._fd).st_size
        if size == 0:
            return
        if not _BEGINNING.startswith(os.pread(self._fd, len(_BEGINNING), 0)):
            raise ExportFailed(f"{self._path} is no export of removed jobs, so nothing is added to it; choose another.")
        os.ftruncate(self._fd, _end_of_last_line(self._fd, size))

    def _cut_back(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> ExportFailed:
        return ExportFailed(f"{self._path} cannot be written: {error.strerror or error}. The jobs were not removed.")


def _records(store: JobHistoryStore, entries: Sequence[JobHistoryEntry]) -> list[Record]:
    events = store.get_events_of_jobs([entry.job_id for entry in entries])
    return [
        exported(entry)
        | {
            EVENTS: exported_events(events.get(entry.job_id, ())),
            LOG: exported_events(store.get_job_log(entry.job_id, LOG_LINES)),
        }
        for entry in entries
    ]


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _end_of_last_line(fd: int, size: int) -> int:
    block = 2**16
    while size:
        start = max(0, size - block)
        newline = os.pread(fd, size - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        size = start
    return 0
