"""Everything about one job, on one page: why it ended as it did comes first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .job_table import progress
from .output import STATUS_STYLES, duration, local_time, one_line, shown

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from ...history.event import JobEvent
    from ...history.job import JobEnd
    from ...history.job_history_store import RecordedEvent
    from ..job_view import JobViewModel


_LEVEL_STYLES: Final = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}


def job_json(
    job: JobViewModel,
    events: Sequence[RecordedEvent],
    log: Sequence[RecordedEvent],
    retries: Sequence[JobViewModel],
) -> dict[str, Any]:
    """Return the page as JSON's own types: the job's view, its events, its log and its later retries."""
    fields: dict[str, Any] = msgspec.to_builtins(job)
    fields["events"] = [
        {"seq": recorded.seq, "recorded_at": recorded.recorded_at, **msgspec.to_builtins(recorded.event)}
        for recorded in events
    ]
    fields["log"] = [
        {"at": recorded.event.at, "level": recorded.event.level, "text": recorded.event.text} for recorded in log
    ]
    fields["later_retries"] = [
        {"job_id": later.job_id, "status": later.status, "retry_of": later.retry_of, "created_at": later.created_at}
        for later in retries
    ]
    return fields


def job_page(
    job: JobViewModel,
    events: Sequence[RecordedEvent],
    log: Sequence[RecordedEvent],
    retries: Sequence[JobViewModel],
) -> RenderableType:
    """Return the page."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Text | Table] = [
        *_headline(job),
        Text(),
        _facts_table(job, retries),
        *_traceback(events),
        Text(),
        _events_table(events),
        *_log(log),
    ]
    return Group(*parts)


def _headline(job: JobViewModel) -> Iterator[Text]:
    from rich.text import Text

    yield Text.assemble((str(job.status), STATUS_STYLES[job.status]), "  ", one_line(job.task) or "?")
    for reason in _reasons(job):
        yield Text(reason, style="red" if job.last_error and job.status == "FAILED" else "")


def _reasons(job: JobViewModel) -> list[str]:
    failure = f"{job.failure_kind}: {job.last_error or ''}" if job.failure_kind else job.last_error
    reasons = [_cancel(job), failure, job.end_detail, job.cancel_state, job.live_note]
    return list(dict.fromkeys(one_line(reason) for reason in reasons if reason))


def _cancel(job: JobViewModel) -> str | None:
    if job.cancel_requested_at is None:
        return None
    asked = f"cancel asked by {job.cancel_actor or 'somebody'} at {local_time(job.cancel_requested_at)}"
    return f"{asked}: {job.cancel_reason}" if job.cancel_reason else f"{asked}, without a reason"


def _facts_table(job: JobViewModel, retries: Sequence[JobViewModel]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in (*_facts(job), *(("later retry", f"{later.job_id} {later.status}") for later in retries)):
        if value:
            table.add_row(name, Text(one_line(value)))
    return table


def _facts(job: JobViewModel) -> list[tuple[str, str | None]]:
    return [
        ("job", job.job_id),
        ("arguments", job.payload_summary),
        ("priority", f"{job.priority_name} ({job.priority})" if job.priority is not None else None),
        ("queue", job.queue),
        ("tags", ", ".join(job.tags)),
        ("group", job.group_id),
        ("metadata", ", ".join(f"{key}={value}" for key, value in job.metadata.items())),
        ("created", local_time(job.created_at)),
        ("started", local_time(job.started_at) if job.started_at else None),
        ("ended", local_time(job.completed_at) if job.completed_at else None),
        ("ran for", duration(job.runtime) if job.runtime is not None else None),
        ("node", job.worker_id),
        ("attempt", str(job.attempt) if job.attempt > 1 else None),
        ("next attempt", local_time(job.next_attempt_at) if job.next_attempt_at else None),
        ("progress", progress(job)),
        ("result", job.result_ref),
        ("retry of", job.retry_of),
        ("first of family", job.root_id if job.root_id != job.retry_of else None),
        ("known from", _source(job)),
        ("cancel", _possible("cancel", job.can_cancel, job.cancel_refusal, job)),
        ("retry", _possible("retry", job.can_retry, job.retry_refusal, job)),
    ]


def _source(job: JobViewModel) -> str:
    names = {"worker": "its worker", "history": "the ledger", "stale": "the ledger; its node is silent"}
    source = names.get(job.live_source, "a worker; the ledger does not know it")
    return source if job.live_age is None else f"{source}, {duration(job.live_age)} ago"


def _possible(action: str, possible: bool, refusal: str | None, job: JobViewModel) -> str:
    return f"jobledger {action} {job.job_id}" if possible else f"not possible: {refusal}"


def _traceback(events: Sequence[RecordedEvent]) -> Iterator[Text]:
    from rich.text import Text

    stack = next((e.event.end.traceback for e in reversed(events) if e.event.end and e.event.end.traceback), None)
    if stack is not None:
        yield Text("\n" + shown(stack.rstrip()))


def _events_table(events: Sequence[RecordedEvent]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("TIME", "WHAT", "BY", "DETAILS"):
        table.add_column(name, no_wrap=name in ("TIME", "WHAT"), overflow="fold")
    for recorded in events:
        event = recorded.event
        cells = (_clock(event), str(event.kind).replace("_", " "), event.worker_id or event.source, _details(event))
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    return table


def _clock(event: JobEvent) -> str:
    return f"{event.at.astimezone():%H:%M:%S.%f}"[:-3]


def _details(event: JobEvent) -> str:
    attempt = 1 + event.requeue + event.retries
    parts = [
        f"attempt {attempt}" if attempt > 1 else None,
        _end_details(event.end) if event.end else None,
        f"by {event.actor}" if event.actor else None,
        event.reason,
        event.text,
        f"due {local_time(event.next_attempt_at)}" if event.next_attempt_at else None,
    ]
    return "; ".join(part for part in parts if part)


def _end_details(end: JobEnd) -> str:
    evidence = {0: "a verdict", 1: "by the death of its process", 2: "by its own end"}[end.evidence]
    what = end.detail or (end.error_message if end.status == "FAILED" else None)
    return f"{end.status}, {evidence}" + (f": {what}" if what else "")


def _log(log: Sequence[RecordedEvent]) -> Iterator[Text]:
    from rich.text import Text

    if log:
        yield Text("\nLOG", style="bold")
    for recorded in log:
        event = recorded.event
        level = one_line(event.level) or "-"
        line = Text.assemble(_clock(event), "  ", (f"{level:<8}", _LEVEL_STYLES.get(level, "dim")), "  ")
        yield line.append(shown(event.text or ""))
