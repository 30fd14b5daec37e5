"""The commands that count: stats, failures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ...errors import InvalidJob
from .acting import JsonFlag
from .connection import reading_service
from .output import note, print_json, show
from .period import beginning
from .statistics_page import failures_table, statistics_page

if TYPE_CHECKING:
    from ...history.failure_group_page import FailureGroupPage

_GROUP_LIMIT: Final = 500


def stats(
    *,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="From when on: 90s, 30min, 6h, 7d, 4w ago, or a moment.")
    ] = "1h",
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Until when, likewise; now unless given.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="NAME", help="Only jobs of this task.")] = None,
    queue: Annotated[str | None, typer.Option("--queue", metavar="NAME", help="Only jobs of this queue.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say how many jobs were sent and how they ended, how long they waited and ran; in all, by task and by queue.

    Each thing counts when it happened. Of the times, the half, 95 and 99 of 100 that took no longer are told.

    \b
    jobledger stats
    jobledger stats --since 7d --task shop.ship
    jobledger stats --since 2026-11-20T08:00 --until 2026-11-20T09:00 --json
    """
    present = datetime.now(UTC)
    start = beginning("--since", since, present)
    end = present if until is None else beginning("--until", until, present)
    if start >= end:
        raise InvalidJob("--since", f"{since!r} is not before {'now' if until is None else f'--until {until!r}'}")
    with reading_service(0.0) as service:
        statistics = service.statistics(start, end, task=task, queue=queue)
    if as_json:
        print_json(statistics)
    else:
        show(statistics_page(statistics))


def failures(
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=_GROUP_LIMIT, help="How many groups at most.")] = 20,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="CURSOR", help="Go on where a page ended; it says where.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List what failed, each failure once: how often, first and last when, what was raised, where, and an example.

    Failures are the same when their exception, their message without its data, and the innermost line of your own
    code are the same. All jobs of a group: jobledger jobs --failure-group GROUP.

    \b
    jobledger failures
    jobledger failures --limit 5 --json
    """
    with reading_service(0.0) as service:
        try:
            page = service.failure_groups(cursor, limit)
        except ValueError:
            raise InvalidJob("--cursor", f"{str(cursor)[:80]!r} was not given out by a page") from None
    if as_json:
        print_json(page)
    else:
        _show_failures(page)


def _show_failures(page: FailureGroupPage) -> None:
    if page.groups:
        show(failures_table(page.groups))
        note("All jobs of a group: jobledger jobs --failure-group GROUP")
    elif not page.next_cursor:
        note("No job is FAILED.")
    if page.next_cursor:
        note(f"There are more: --cursor {page.next_cursor}")
