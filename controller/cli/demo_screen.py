"""How the demo looks: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from .output import STATUS_STYLES, console, duration, is_interactive, one_line, say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..demo_jobs import DemoJob
    from ..job_view import JobViewModel

    Jobs = Mapping[str, tuple[DemoJob, JobViewModel]]

_NEWS: Final = 5
#: Lines of the screen that are not jobs.
_FRAME: Final = _NEWS + 6
_ORDER: Final = ("RUNNING", "QUEUED", "FAILED", "CANCELLED", "COMPLETED")


class LineScreen:
    """Writes a line for each change."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._told: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open."""

    def say(self, sentence: str) -> None:
        """Write a line."""
        say(f"{time.monotonic() - self._started:6.1f} s  {sentence}")

    def show(self, jobs: Jobs) -> None:
        """Write what changed since the last time."""
        for job_id, (job, view) in jobs.items():
            if self._told.get(job_id) != view.status:
                self._told[job_id] = view.status
                self.say(f"{view.status:<9}  {job.priority:<6}  {job.title}")


class LiveScreen:
    """Draws a table, again and again in the same place."""

    def __init__(self) -> None:
        from rich.live import Live

        self._console = console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._started = time.monotonic()
        self._news: list[str] = []
        self._jobs: Jobs = {}

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, sentence: str) -> None:
        """Show a sentence above the table."""
        self._news.append(f"{time.monotonic() - self._started:5.1f} s  {sentence}")
        self._draw()

    def show(self, jobs: Jobs) -> None:
        """Draw the jobs."""
        self._jobs = jobs
        self._draw()

    def _draw(self) -> None:
        from rich.console import Group
        from rich.text import Text

        news = [Text(line, overflow="ellipsis", no_wrap=True) for line in self._news[-_NEWS:]]
        self._live.update(Group(*news, Text(), self._counts(), Text(), self._table()), refresh=True)

    def _counts(self) -> RenderableType:
        from rich.text import Text

        statuses = [view.status for _, view in self._jobs.values()]
        parts: list[Any] = [("Jobledger demo", "bold")]
        for status in _ORDER:
            parts += ["   ", (f"{statuses.count(status)} {status}", STATUS_STYLES[status])]  # type: ignore[arg-type]
        return Text.assemble(*parts, no_wrap=True)

    def _table(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        table.add_column("STATUS", no_wrap=True, width=10)
        table.add_column("PRIORITY", no_wrap=True, width=8)
        table.add_column("JOB", no_wrap=True, ratio=2, overflow="ellipsis")
        table.add_column("", no_wrap=True, width=20)
        table.add_column("WHAT", no_wrap=True, ratio=3, overflow="ellipsis")
        for job, view in self._most_interesting():
            status = Text(str(view.status), style=STATUS_STYLES[view.status])
            table.add_row(status, str(job.priority), Text(one_line(job.title)), _bar(view), Text(_what(view)))
        return table

    def _most_interesting(self) -> list[tuple[DemoJob, JobViewModel]]:
        """What runs and what something happened to comes first; what fits no more is in the counts."""
        room = max(3, self._console.height - _FRAME)

        def rank(pair: tuple[DemoJob, JobViewModel]) -> tuple[int, int]:
            job, view = pair
            eventful = job.role != "picture"
            return (0 if view.status == "RUNNING" else 1 if eventful else 2, _ORDER.index(view.status))

        return sorted(self._jobs.values(), key=rank)[:room]


def _bar(view: JobViewModel) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    if view.status != "RUNNING" or view.progress is None or not view.progress.total:
        return Text()
    return ProgressBar(total=view.progress.total, completed=view.progress.done, width=20)


def _what(view: JobViewModel) -> str:
    if view.last_error:
        return one_line(view.last_error)
    if view.status == "RUNNING":
        return one_line(view.cancel_state or (view.progress.text if view.progress else ""))
    if view.status == "COMPLETED":
        return f"took {duration(view.runtime)}"
    return one_line(view.end_detail)


def demo_screen() -> LiveScreen | LineScreen:
    """Return the screen that fits stdout."""
    return LiveScreen() if is_interactive() else LineScreen()
