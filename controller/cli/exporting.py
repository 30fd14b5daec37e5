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
from ...history.job_history_store import JobFilter
from .connection import reading_service
from .job_filter import whole_family, with_filter
from .output import note

if TYPE_CHECKING:
    from ..job_history_service import JobHistoryService

_STDOUT: Final = "-"


@with_filter
def export(
    *,
    wanted: JobFilter,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The new file; - writes to standard output.")
    ] = _STDOUT,
    export_format: Annotated[
        ExportFormat | None,
        typer.Option("--format", help="How to write it; by the file's ending, else jsonl, unless named."),
    ] = None,
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
    with reading_service(0.0) as service, _bar(service, wanted, target) as progress:
        family = whole_family(service, wanted)
        return service.export(target, family, export_format, events=events, replace=replace, progress=progress)


@contextmanager
def _bar(service: JobHistoryService, wanted: JobFilter, target: Path | BinaryIO) -> Iterator[Callable[[int], None]]:
    jobs_are_shown = not isinstance(target, Path) and sys.stdout.isatty()
    if jobs_are_shown or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("Exporting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("export", total=_number_of_jobs(service, wanted))
        yield lambda written: bar.update(task, completed=written)


def _number_of_jobs(service: JobHistoryService, wanted: JobFilter) -> int | None:
    """How many jobs these are, as far as the ledger knows it without looking."""
    if wanted != JobFilter(statuses=wanted.statuses):
        return None
    counts = service.counts().statuses
    return sum(count for status, count in counts.items() if not wanted.statuses or status in wanted.statuses)
