"""A list of jobs as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from .output import STATUS_STYLES, age, duration, one_line, terminal_width

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from ..job_view import JobViewModel

_WIDE: Final = 110
_STATUS_WIDTH: Final = 9
_AGE_WIDTH: Final = 7
_PRIORITY_WIDTH: Final = 8


def job_table(jobs: Iterable[JobViewModel], title: str | None = None) -> Table:
    """Return the table; on a terminal it fits the width, elsewhere nothing is cut."""
    from rich.table import Table

    width = terminal_width()
    with_priority = width is None or width >= _WIDE
    task_width = None if width is None else (28 if width >= _WIDE else 14)
    table = Table(title=title, box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.add_column("JOB", no_wrap=True, min_width=36)
    table.add_column("STATUS", no_wrap=True, min_width=_STATUS_WIDTH)
    table.add_column("AGE", no_wrap=True, min_width=_AGE_WIDTH, justify="right")
    if with_priority:
        table.add_column("PRIORITY", no_wrap=True, min_width=_PRIORITY_WIDTH)
    table.add_column("TASK", no_wrap=True, overflow="ellipsis", max_width=task_width)
    table.add_column("WHAT", no_wrap=True, overflow="ellipsis", max_width=_rest(width, task_width, with_priority))
    for job in jobs:
        table.add_row(*_cells(job, with_priority))
    return table


def _rest(width: int | None, task_width: int | None, with_priority: bool) -> int | None:
    """What is left for the last column: the others say what they say at any width."""
    if width is None or task_width is None:
        return None
    columns = [36, _STATUS_WIDTH, _AGE_WIDTH, task_width] + ([_PRIORITY_WIDTH] if with_priority else [])
    return max(8, width - sum(columns) - 2 * len(columns))


def _cells(job: JobViewModel, with_priority: bool) -> list[Text]:
    from rich.text import Text

    return [
        Text(one_line(job.job_id)),
        Text(str(job.status), style=STATUS_STYLES[job.status]),
        Text(age(job.created_at)),
        *([Text(job.priority_name)] if with_priority else []),
        Text(one_line(job.task) or "?"),
        Text(what(job)),
    ]


def what(job: JobViewModel) -> str:
    """Return the one thing about a job that matters most now, then its summary."""
    return one_line(" | ".join(part for part in (_news(job), job.payload_summary) if part))


def _news(job: JobViewModel) -> str:
    if job.last_error:
        return job.last_error
    if job.is_active and job.cancel_state:
        return job.cancel_state
    if job.status == "RUNNING":
        return _running(job)
    if job.is_active and job.live_note:
        return job.live_note
    if job.status == "COMPLETED" and job.runtime is not None:
        return f"took {duration(job.runtime)}"
    return job.end_detail or ""


def _running(job: JobViewModel) -> str:
    unconfirmed = "nobody confirms it now" if job.live_source == "history" else ""
    parts = [f"on {job.worker_id}" if job.worker_id else "", progress(job), job.live_note or unconfirmed]
    return ", ".join(part for part in parts if part)


def progress(job: JobViewModel) -> str:
    """Return how far a job says it is."""
    if job.progress is None:
        return ""
    done, total, text = job.progress.done, job.progress.total, one_line(job.progress.text)
    share = f"{done:g} of {total:g}" if total else f"{done:g}"
    return f"{share} ({text})" if text else share
