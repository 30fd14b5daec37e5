"""The whole filtered history as a file: streamed page by page, redacted."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from ..errors import ExportFailed
from .export_format import ExportFormat, writer_of
from .exported_job import EVENTS, Record, exported, exported_events
from .job import JobHistoryEntry
from .job_history_store import PAGE_LIMIT, JobFilter, JobHistoryStore

#: Jobs whose events are held in memory at once.
_PAGE_WITH_EVENTS: Final = 100


def export_jobs(
    store: JobHistoryStore,
    job_filter: JobFilter,
    stream: BinaryIO,
    export_format: ExportFormat,
    *,
    events: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write all filtered jobs, newest first, to a stream that stays open; return how many.

    ``progress`` is told after each page how many jobs are written so far. Memory does not grow with their number.

    Raises:
        ExportFailed: when the format needs something that is not installed.
        OSError: when the stream does not take it.
    """
    writer = writer_of(export_format, stream, events=events)
    written = 0
    for entries in _pages(store, job_filter, _PAGE_WITH_EVENTS if events else PAGE_LIMIT):
        writer.write(_records(store, entries, events=events))
        written += len(entries)
        if progress is not None:
            progress(written)
    writer.finish()
    return written


def _pages(store: JobHistoryStore, job_filter: JobFilter, limit: int) -> Iterator[Sequence[JobHistoryEntry]]:
    cursor: str | None = None
    while True:
        page = store.page_jobs(job_filter, cursor, limit)
        yield page.entries
        cursor = page.next_cursor
        if cursor is None:
            return


def _records(store: JobHistoryStore, entries: Sequence[JobHistoryEntry], *, events: bool) -> list[Record]:
    records = [exported(entry) for entry in entries]
    if events:
        found = store.get_events_of_jobs([entry.job_id for entry in entries])
        for record in records:
            record[EVENTS] = exported_events(found.get(record["job_id"], ()))
    return records


@contextmanager
def new_file(path: Path, *, replace: bool = False) -> Iterator[BinaryIO]:
    """Give a stream to a file that gets its name when the block ends well, all of it on the disk; else nothing stays.

    The file belongs to this user only. ``replace`` allows it to take another one's place.

    Raises:
        ExportFailed: when there is such a file already, when it is a directory or a device, or cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            raise ExportFailed(f"{path} is no file; choose another.")
        if not replace and path.exists():
            raise ExportFailed(f"{path} exists already; choose another name, or replace it with --force.")
        with _named_when_whole(path, replace=replace) as stream:
            yield stream
    except FileExistsError:
        raise ExportFailed(f"{path} exists by now; choose another name, or replace it with --force.") from None
    except OSError as error:
        raise ExportFailed(f"{path} cannot be written: {error.strerror or error}.") from error


@contextmanager
def _named_when_whole(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    hidden = Path(name)
    try:
        with os.fdopen(fd, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            hidden.replace(path)
        else:
            os.link(hidden, path)
        flush_directory(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            hidden.unlink()


def flush_directory(directory: Path) -> None:
    """Bring the names of a directory's files to the disk."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
