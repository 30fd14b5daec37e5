"""The commands that look: jobs, show, watch."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ...errors import InvalidJob
from ...history.event_batch import LOG_LINES
from ...history.job_history_store import JobFilter
from .acting import JobId, JsonFlag
from .connection import reading_service
from .job_filter import whole_family, with_filter
from .job_page import job_json, job_page
from .job_table import job_table, progress, what
from .output import console, is_interactive, local_time, note, one_line, print_json, say
from .output import show as show_table
from .statistics_page import counts_line

if TYPE_CHECKING:
    from ..job_history_service import JobHistoryService
    from ..job_view import JobViewModel
    from ..views import JobViewPage

_INTERVAL: Final = 0.5
_PAGE_LIMIT: Final = 500
_WATCHED: Final = 20

LimitFlag = Annotated[int, typer.Option("--limit", min=1, max=_PAGE_LIMIT, help="How many at most.")]


@with_filter
def jobs(
    *,
    wanted: JobFilter,
    limit: LimitFlag = 50,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="CURSOR", help="Go on where a page ended; it says where.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List jobs, newest first.

    Needs only the ledger: without a broker or with every worker down it shows what is recorded.

    \b
    jobledger jobs
    jobledger jobs --status failed --limit 20
    jobledger jobs --status queued --status running --task shop.ship --json
    jobledger jobs --since 6h --tag monthly --meta customer=acme
    jobledger jobs --search 'out of memory' --status failed
    """
    is_everything = wanted == JobFilter() and cursor is None
    with reading_service() as service:
        try:
            page = service.list_jobs(whole_family(service, wanted), cursor, limit)
        except ValueError:
            raise InvalidJob("--cursor", f"{str(cursor)[:80]!r} was not given out by a page") from None
        counts = service.counts() if is_everything and page.jobs and not as_json else None
    if as_json:
        print_json(page)
        return
    if page.jobs:
        show_table(job_table(page.jobs))
    elif not page.next_cursor:
        note("No jobs yet. Send one: jobledger submit --help" if is_everything else "No jobs.")
    if counts is not None:
        note(counts_line(counts))
    if page.next_cursor:
        note(_how_to_go_on(page, limit))


def _how_to_go_on(page: JobViewPage, limit: int) -> str:
    if len(page.jobs) < limit:
        return f"Not all jobs have been looked at yet; there may be more: --cursor {page.next_cursor}"
    return f"There are more: --cursor {page.next_cursor}"


def show(
    job_id: JobId,
    log_lines: Annotated[
        int, typer.Option("--log", metavar="N", min=0, max=LOG_LINES, help="How many of the newest lines of its log.")
    ] = 200,
    as_json: JsonFlag = False,
) -> None:
    """Show everything about one job: why it ended as it did, its facts, its events with their evidence, its log.

    \b
    jobledger show 019a8b3e-6c1f-7d20-9a31-5f0e2b7c4d11
    jobledger show 019a8b3e-6c1f-7d20-9a31-5f0e2b7c4d11 --log 20
    jobledger show 019a8b3e-6c1f-7d20-9a31-5f0e2b7c4d11 --json
    """
    with reading_service() as service:
        job = service.get_job(job_id)
        events = service.get_job_events(job_id) if job.live_source != "foreign" else []
        log = service.get_job_log(job_id, log_lines) if log_lines else []
        retries = service.later_retries(job_id)
    if as_json:
        print_json(job_json(job, events, log, retries))
    else:
        show_table(job_page(job, events, log, retries))


def watch(
    job_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One job, until its end.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each change.")] = False,
) -> None:
    """Watch the newest jobs live until Ctrl-C, or one job until its end.

    Where stdout is no terminal, each change is a line.

    \b
    jobledger watch
    jobledger watch 019a8b3e-6c1f-7d20-9a31-5f0e2b7c4d11
    """
    with reading_service() as service:
        if job_id is not None:
            _watch_job(service, job_id, as_json)
        else:
            _watch_jobs(service, as_json)


def _watch_job(service: JobHistoryService, job_id: str, as_json: bool) -> None:
    changes = _Changes(as_json)
    while True:
        job = service.get_job(job_id)
        changes.tell(job)
        if not job.is_active:
            return
        time.sleep(_INTERVAL)


def _watch_jobs(service: JobHistoryService, as_json: bool) -> None:
    if is_interactive() and not as_json:
        _show_live(service)
    changes = _Changes(as_json)
    while True:
        for job in reversed(service.list_recent_jobs(_WATCHED)):
            changes.tell(job)
        time.sleep(_INTERVAL)


def _show_live(service: JobHistoryService) -> None:
    from rich.live import Live

    with Live(console=console(), auto_refresh=False, screen=True) as live:
        while True:
            room = max(1, live.console.height - 3)
            table = job_table(service.list_recent_jobs(room), "The newest jobs; Ctrl-C ends this")
            live.update(table, refresh=True)
            time.sleep(_INTERVAL)


class _Changes:
    """Tells what changed since it was told last."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._told: dict[str, Any] = {}

    def tell(self, job: JobViewModel) -> None:
        state = (job.status, job.attempt, job.cancel_state, progress(job), job.worker_id)
        if self._told.get(job.job_id) == state:
            return
        is_news = job.job_id in self._told
        self._told[job.job_id] = state
        if self._as_json:
            print_json(job, indent=0)
            return
        task = one_line(job.task) or "?"
        say(f"{_moment(job, is_news)}  {job.job_id}  {job.status:<9}  {task}  {what(job)}".rstrip())


def _moment(job: JobViewModel, is_news: bool) -> str:
    """When it became what it is; the present for what is only seen now."""
    known = job.completed_at or (None if is_news else job.started_at or job.created_at)
    return local_time(known or datetime.now(UTC))
