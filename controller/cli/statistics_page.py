"""Statistics, and groups of failures, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from .output import age, duration, local_time, one_line, terminal_width

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from ...history.failure_group_page import FailureGroupSummary
    from ...history.statistics import Activity, Durations, LedgerCounts, NamedActivity, Statistics, Step

_BARS: Final = "▁▂▃▄▅▆▇█"
_CHART_WIDTH: Final = 60
_STEP_NAMES: Final = {60: "a minute", 3_600: "an hour", 86_400: "a day"}
_PERCENTILES: Final = "50 / 95 / 99 %"


def statistics_page(statistics: Statistics) -> RenderableType:
    """Return the page: the range, a table by task, one by queue if there are several, and a chart."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Text | Table] = [
        Text(f"From {local_time(statistics.since)} to {local_time(statistics.until)}", style="bold"),
        Text(),
        _table("TASK", statistics.total, statistics.by_task),
    ]
    if len(statistics.by_queue) > 1:
        parts += [Text(), _table("QUEUE", None, statistics.by_queue)]
    return Group(*parts, Text(), *_chart(statistics))


def _table(title: str, total: Activity | None, groups: Iterable[NamedActivity]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, no_wrap=True, overflow="ellipsis", max_width=28 if terminal_width() else None)
    for name in ("SENT", "COMPLETED", "FAILED", "CANCELLED", f"WAITED {_PERCENTILES}", f"RAN {_PERCENTILES}"):
        table.add_column(name, no_wrap=True, justify="right")
    for group in groups:
        table.add_row(*_cells(one_line(group.name) or "?", group))
    if total is not None:
        table.add_row(*_cells("all", total), style="bold")
    return table


def _cells(name: str, activity: Activity) -> list[Text]:
    from rich.text import Text

    cells = (name, f"{activity.submitted:,}", f"{activity.completed:,}", _failed(activity), f"{activity.cancelled:,}")
    return [Text(cell) for cell in (*cells, _percentiles(activity.waited), _percentiles(activity.ran))]


def _failed(activity: Activity) -> str:
    share = f" ({activity.failed_share:.1%})" if activity.failed and activity.failed_share else ""
    return f"{activity.failed:,}{share}"


def _percentiles(durations: Durations) -> str:
    if not durations.count:
        return "-"
    return " / ".join(_shortly(seconds) for seconds in (durations.p50, durations.p95, durations.p99))


def _shortly(seconds: float | None) -> str:
    if seconds is None or seconds >= 1:
        return duration(seconds)
    return f"{seconds * 1_000:.0f} ms"


def _chart(statistics: Statistics) -> Iterator[Text]:
    from rich.text import Text

    size = -(-len(statistics.steps) // _CHART_WIDTH)
    columns = [statistics.steps[first : first + size] for first in range(0, len(statistics.steps), size)]
    name = _STEP_NAMES[statistics.step]
    unit = name if size == 1 else f"{size} {name.split()[-1]}s"
    for title, style, of in (("COMPLETED", "green", _completed), ("FAILED", "bold red", _failed_in)):
        counts = [of(column) for column in columns]
        most = max(counts, default=0)
        yield Text.assemble((f"{title:<9}  ", "bold"), (_bars(counts, most), style), f"  at most {most:,} in {unit}")


def _completed(steps: Sequence[Step]) -> int:
    return sum(step.completed for step in steps)


def _failed_in(steps: Sequence[Step]) -> int:
    return sum(step.failed for step in steps)


def _bars(counts: Iterable[int], most: int) -> str:
    # Something is never drawn as nothing.
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] if count else " " for count in counts)


def counts_line(counts: LedgerCounts) -> str:
    """Return how many jobs the ledger holds, as one sentence."""
    statuses = [f"{count:,} {status}" for status, count in counts.statuses.items() if count]
    return f"In the ledger: {', '.join(statuses) or 'no jobs'}."


def failures_table(groups: Iterable[FailureGroupSummary]) -> Table:
    """Return the groups as a table: two lines for each."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("COUNT", "FIRST", "LAST"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("GROUP", no_wrap=True, min_width=16)
    table.add_column("FAILURE", overflow="fold")
    for group in groups:
        seen = (age(group.first_seen_at), age(group.last_seen_at))
        table.add_row(f"{group.count:,}", *seen, group.fingerprint, Text(_failure(group)))
        table.add_row("", "", "", "", Text(_where(group), style="dim"))
    return table


def _failure(group: FailureGroupSummary) -> str:
    return one_line(f"{group.error_type}: {group.pattern}" if group.pattern else group.error_type)


def _where(group: FailureGroupSummary) -> str:
    place = f"in {group.frame}, " if group.frame else ""
    return one_line(f"{place}for instance {group.example_job_id}")
