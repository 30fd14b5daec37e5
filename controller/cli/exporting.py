"""The command that writes the history to a file: export."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final

import typer

from ...errors import ExportFailed
from ...history.export_format import ExportFormat
from .connection import reading_service
from .output import note
from .reading import QueueFlag, StatusFlag, TaskFlag

if TYPE_CHECKING:
    from ...history.job_history_store import JobFilter

_STDOUT: Final = "-"


def export(
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The new file; - writes to standard output.")
    ] = _STDOUT,
    export_format: Annotated[
        ExportFormat | None,
        typer.Option("--format", help="How to write it; by the file's ending, else jsonl, unless named."),
    ] = None,
    status: StatusFlag = None,
    task: TaskFlag = None,
    queue: QueueFlag = None,
    events: Annotated[bool, typer.Option("--events", help="Also write each job's events.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Take the place of an existing file.")] = False,
) -> None:
    """Write all jobs that fit, newest first, as JSON lines, CSV or Parquet; without secrets.

    A file gets its name when it is whole, so an export that was stopped leaves none.

    \b
    jobledger export --output jobs.jsonl
    jobledger export --status failed --events --output failed.parquet
    jobledger export --format csv --task shop.ship | head
    """
    from ...history.job_history_store import JobFilter

    wanted = JobFilter(statuses=tuple(status or ()), task=task, queue=queue)
    chosen = export_format or _format_of(output)
    if output == _STDOUT:
        _to_stdout(wanted, chosen, events=events)
    else:
        written = _write(Path(output), wanted, chosen, events=events, replace=force)
        note(f"Exported {written:,} jobs to {output}.")


def _format_of(output: str) -> ExportFormat:
    ending = Path(output).suffix.lower().removeprefix(".")
    return ExportFormat(ending) if ending in set(ExportFormat) else ExportFormat.JSONL


def _to_stdout(wanted: JobFilter, export_format: ExportFormat, *, events: bool) -> None:
    if export_format is ExportFormat.PARQUET and sys.stdout.isatty():
        raise typer.BadParameter("Parquet is no text for a terminal; name a file by --output")
    try:
        _write(sys.stdout.buffer, wanted, export_format, events=events, replace=False)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever reads has enough. What is still in the buffer must not complain when the program ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise ExportFailed(f"Standard output cannot be written: {error.strerror or error}.") from error


def _write(
    target: Path | BinaryIO, wanted: JobFilter, export_format: ExportFormat, *, events: bool, replace: bool
) -> int:
    with reading_service(0.0) as service:
        total = service.count_jobs(wanted.statuses) if _is_counted(wanted) else None
        with _bar(total, shown=target is not sys.stdout.buffer or not sys.stdout.isatty()) as progress:
            return service.export(target, wanted, export_format, events=events, replace=replace, progress=progress)


def _is_counted(wanted: JobFilter) -> bool:
    """Whether the ledger knows without looking how many jobs these are."""
    return wanted == type(wanted)(statuses=wanted.statuses)


@contextmanager
def _bar(total: int | None, *, shown: bool) -> Iterator[Callable[[int], None]]:
    if not shown or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("Exporting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("export", total=total)
        yield lambda written: bar.update(task, completed=written)
