"""The flags that say which jobs: the same for every command that takes a filter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import typer

from ...errors import InvalidJob
from ...history.job import JobStatus
from ...history.job_history_store import JobFilter
from .period import beginning

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
    "family": _one("--family", "ID", "Only this job and the retries that come from it."),
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
    present = datetime.now(UTC)
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
            since=beginning("--since", since, present) if since else None,
            until=beginning("--until", until, present) if until else None,
            text=search,
        )
    except ValueError as error:
        raise InvalidJob("--search", str(error)) from None


def _items(texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    for text in texts:
        key, is_pair, value = text.partition("=")
        if not is_pair:
            raise InvalidJob("--meta", f"{text[:100]!r} is not of the form KEY=VALUE")
        yield key, value
