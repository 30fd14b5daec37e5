"""The flags that say which jobs: the same for every command that takes a filter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
import typer

from ...errors import InvalidJob
from ...history.job import JobStatus
from ...history.job_history_store import JobFilter
from .period import beginning

if TYPE_CHECKING:
    from ..job_history_service import JobHistoryService

Command = TypeVar("Command", bound=Callable[..., Any])

_PANEL: Final = "Which jobs"


def _one(flag: str, metavar: str, text: str) -> Any:
    return Annotated[str | None, typer.Option(flag, metavar=metavar, help=text, rich_help_panel=_PANEL)]


def _several(flag: str, metavar: str, text: str) -> Any:
    return Annotated[list[str] | None, typer.Option(flag, metavar=metavar, help=text, rich_help_panel=_PANEL)]


_FLAGS: Final[dict[str, Any]] = {
    "status": Annotated[
        list[JobStatus] | None,
        typer.Option(
            "--status", case_sensitive=False, help="Only jobs of this status; repeatable.", rich_help_panel=_PANEL
        ),
    ],
    "task": _one("--task", "NAME", "Only jobs of this task."),
    "queue": _one("--queue", "NAME", "Only jobs of this queue."),
    "worker": _one("--worker", "NAME", "Only jobs that this worker runs, ended, or ran last."),
    "tag": _several("--tag", "WORD", "Only jobs with this tag; repeatable: with all of them."),
    "meta": _several("--meta", "KEY=VALUE", "Only jobs with this item of metadata; repeatable: with all of them."),
    "group": _one("--group", "NAME", "Only jobs of this group."),
    "family": _one("--family", "ID", "Only this job's family: the first job, and all retries that come from it."),
    "failure_group": _one("--failure-group", "GROUP", "Only jobs of this group of `jobledger failures`."),
    "since": _one("--since", "TIME", "Only jobs sent since then: 90s, 30min, 6h, 7d, 4w ago, or a moment."),
    "until": _one("--until", "TIME", "Only jobs sent before then, likewise."),
    "search": _one("--search", "WORDS", "Only jobs with all of these words in summary, task, error, tags or metadata."),
}


def with_filter(command: Command) -> Command:
    """Give a command the flags that say which jobs; it gets them as its parameter ``wanted``."""

    @functools.wraps(command)
    def with_flags(*args: Any, **kwargs: Any) -> Any:
        return command(*args, wanted=_filter_of(**{name: kwargs.pop(name) for name in _FLAGS}), **kwargs)

    signature = inspect.signature(command, eval_str=True)
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _FLAGS.items()
    ]
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "wanted"]
    with_flags.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
    return with_flags  # type: ignore[return-value]


def whole_family(service: JobHistoryService, wanted: JobFilter) -> JobFilter:
    """Return a filter by any job of a family as one by its first job."""
    if wanted.root_id is None:
        return wanted
    return msgspec.structs.replace(wanted, root_id=service.first_of_family(wanted.root_id))


def _filter_of(
    *,
    status: list[JobStatus] | None,
    task: str | None,
    queue: str | None,
    worker: str | None,
    tag: list[str] | None,
    meta: list[str] | None,
    group: str | None,
    family: str | None,
    failure_group: str | None,
    since: str | None,
    until: str | None,
    search: str | None,
) -> JobFilter:
    start, end = _times(since, until)
    try:
        return JobFilter(
            statuses=tuple(status or ()),
            task=task,
            queue=queue,
            worker_id=worker,
            tags=tuple(tag or ()),
            metadata=tuple(_items(meta or ())),
            group_id=group,
            root_id=family,
            failure_group=failure_group,
            since=start,
            until=end,
            text=search,
        )
    except ValueError as error:
        raise InvalidJob("--search", str(error)) from None


def _times(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    present = datetime.now(UTC)
    start = None if since is None else beginning("--since", since, present)
    end = None if until is None else beginning("--until", until, present)
    if start is not None and end is not None and start >= end:
        raise InvalidJob("--since", f"{since!r} is not before --until {until!r}")
    return start, end


def _items(texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    for text in texts:
        key, is_pair, value = text.partition("=")
        if not is_pair:
            raise InvalidJob("--meta", f"{text[:100]!r} is not of the form KEY=VALUE")
        yield key, value
