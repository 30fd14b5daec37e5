"""The commands that change something: submit, cancel, retry."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ...errors import InvalidJob, JobActionNotAllowed
from ...history.redaction import redact_text
from .connection import acting_service, actor
from .exit_codes import ExitCode
from .output import note, print_json, say

if TYPE_CHECKING:
    from ..cancel_outcome import CancelOutcome
    from ..job_history_service import JobHistoryService

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.", show_default=False)]
PriorityFlag = Annotated[
    str | None,
    typer.Option("--priority", metavar="P", help="high, normal, low, or 0 to 9 as the broker counts (Redis: 0 first)."),
]
QueueFlag = Annotated[
    str | None, typer.Option("--queue", metavar="NAME", help="The queue; the task's own unless named.")
]
TagFlag = Annotated[list[str] | None, typer.Option("--tag", metavar="WORD", help="A word to find it by; repeatable.")]
GroupFlag = Annotated[
    str | None, typer.Option("--group", metavar="NAME", help="A name that it shares with other jobs.")
]
MetaFlag = Annotated[
    list[str] | None, typer.Option("--meta", metavar="KEY=VALUE", help="A text to keep with it; repeatable.")
]
IdFlag = Annotated[
    str | None, typer.Option("--id", metavar="ID", help="An id of your own: letters, digits and . _ : -")
]
TimeLimitFlag = Annotated[
    float | None, typer.Option("--time-limit", metavar="SECONDS", help="Kill the job after so many seconds.")
]
GraceFlag = Annotated[
    float | None,
    typer.Option("--cancel-grace", metavar="SECONDS", help="What it gets to stop by itself when it is cancelled."),
]

_WAIT_INTERVAL: Final = 0.2
_REPEAT_INTERVAL: Final = 1.0


def submit(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's name.", show_default=False)],
    *,
    args: Annotated[
        str, typer.Option("--args", metavar="JSON", help="A JSON list; @FILE reads it from a file, - from stdin.")
    ] = "[]",
    kwargs: Annotated[str, typer.Option("--kwargs", metavar="JSON", help="A JSON object; as --args.")] = "{}",
    priority: PriorityFlag = None,
    queue: QueueFlag = None,
    tag: TagFlag = None,
    group: GroupFlag = None,
    meta: MetaFlag = None,
    job_id: IdFlag = None,
    time_limit: TimeLimitFlag = None,
    cancel_grace: GraceFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Send a job.

    It is in the ledger before it is in the queue, so it can be shown, cancelled and found at once. A job that does
    not fit (unknown task, arguments that are not JSON, too large) is refused before anything is written.

    \b
    jobledger submit shop.ship --args '[[1001, 1002]]' --priority high
    jobledger submit shop.report --kwargs '{"month": "2026-10"}' --tag monthly --meta customer=acme
    jobledger submit shop.close_books --group october --time-limit 600
    jobledger submit shop.load --args @orders.json --json
    """
    arguments, named = _json(args, "args"), _json(kwargs, "kwargs")
    options = _options(priority, queue, job_id, time_limit, cancel_grace) | _labels(tag, group, meta)
    with acting_service() as service:
        submitted = service.submit(task, arguments, named, **options)
        _tell_submitted(service, submitted, as_json)


def submit_pipeline(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The pipeline, as JSON or TOML; - reads JSON.", show_default=False)
    ],
    *,
    priority: PriorityFlag = None,
    queue: QueueFlag = None,
    tag: TagFlag = None,
    group: GroupFlag = None,
    meta: MetaFlag = None,
    job_id: IdFlag = None,
    time_limit: TimeLimitFlag = None,
    cancel_grace: GraceFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Send a picture pipeline.

    The file says which pictures go through which stages. A wrong field is refused with its name and what is allowed.

    \b
    jobledger submit-pipeline postcards.json --priority low
    jobledger submit-pipeline postcards.toml --tag holiday --json
    """
    config = _pipeline(file)
    options = _options(priority, queue, job_id, time_limit, cancel_grace) | _labels(tag, group, meta)
    if priority is None:
        del options["priority"]
    with acting_service() as service:
        submitted = service.submit_pipeline_job(config, **options)
        _tell_submitted(service, submitted, as_json)


def cancel(
    job_id: JobId,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; kept with the job.")] = None,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait for the proof that it stopped.")
    ] = 0.0,
    as_json: JsonFlag = False,
) -> int:
    """Cancel a job, queued or running; works with every worker down.

    The job is CANCELLED only when it provably never starts or has in fact stopped; until then this command says what
    it waits for, and the leader (in `jobledger up` and `jobledger control`) carries on. Exit code 1 says that --wait
    ran out, 4 that the job ended otherwise.

    \b
    jobledger cancel 019a8b3e-6c1f-7d20-9a31-5f0e2b7c4d11
    jobledger cancel 019a8b3e-6c1f-7d20-9a31-5f0e2b7c4d11 --reason "wrong customer" --wait 30
    """
    with acting_service() as service:
        outcome = service.cancel_job(job_id, actor(), reason)
        outcome = _wait_for_proof(service, outcome, wait)
    if as_json:
        print_json(outcome)
    else:
        say(_cancel_sentence(outcome))
    return _cancel_code(outcome, wait)


def retry(
    job_id: JobId,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="What is to differ; VALUE is JSON, else text. Repeatable."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Send an ended job again, as a new job with exactly the same arguments.

    The old job stays as it was. --set changes an argument: kwargs.NAME, args.0, priority, queue, time_limit, or a
    field of a pipeline such as seed or stages.1.settings.width.

    \b
    jobledger retry 019a8b3e-6c1f-7d20-9a31-5f0e2b7c4d11
    jobledger retry 019a8b3e-6c1f-7d20-9a31-5f0e2b7c4d11 --set kwargs.month=2026-11 --set priority=high
    """
    overrides = dict(_change(text) for text in changes or ())
    with acting_service() as service:
        new_id = service.retry_job(job_id, overrides or None, actor())
    if as_json:
        print_json({"job_id": new_id, "retry_of": job_id})
    else:
        say(f"Job {new_id} is queued; it repeats {job_id}.")


def _options(
    priority: str | None,
    queue: str | None,
    job_id: str | None,
    time_limit: float | None,
    cancel_grace: float | None,
) -> dict[str, Any]:
    return {
        "priority": int(priority) if priority is not None and priority.isdecimal() else priority,
        "queue": queue,
        "job_id": job_id,
        "time_limit": time_limit,
        "cancel_grace": cancel_grace,
    }


def _labels(tags: list[str] | None, group: str | None, items: list[str] | None) -> dict[str, Any]:
    return {"tags": tags or (), "group_id": group, "metadata": _metadata(items or ())}


def _metadata(items: Iterable[str]) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for item in items:
        key, value = _pair(item, "--meta")
        if key in metadata:
            raise InvalidJob("--meta", f"{key[:100]!r} is given twice")
        metadata[key] = value
    return metadata


def _json(text: str, field: str) -> Any:
    source = _read(text, field)
    try:
        return json.loads(source)
    except ValueError as error:
        raise InvalidJob(field, f"is not JSON ({error}); write it like '[1, \"two\"]' or '{{\"name\": 3}}'") from None
    except RecursionError:
        raise InvalidJob(field, "is nested too deeply") from None


def _read(text: str, field: str) -> str:
    if text == "-":
        return sys.stdin.read()
    if not text.startswith("@"):
        return text
    return _file_text(Path(text[1:]), field)


def _file_text(path: Path, field: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidJob(field, f"the file {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise InvalidJob(field, f"the file {path} is not a text in UTF-8") from None


def _pipeline(path: Path) -> Any:
    if path.suffix.lower() != ".toml":
        return _json("-" if str(path) == "-" else f"@{path}", "pipeline")
    import tomllib

    try:
        return tomllib.loads(_file_text(path, "pipeline"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidJob("pipeline", f"the file {path} is not TOML: {error}") from None


def _change(text: str) -> tuple[str, Any]:
    key, value = _pair(text, "--set")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _pair(text: str, flag: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidJob(flag, f"{redact_text(text)[:100]!r} is not of the form KEY=VALUE")
    return key, value


def _tell_submitted(service: JobHistoryService, job_id: str, as_json: bool) -> None:
    if as_json:
        print_json({"job_id": job_id})
    else:
        say(f"Job {job_id} is queued. See it by: jobledger show {job_id}")
    if not service.nodes_for(job_id):
        note("No running worker of this ledger serves its queue; start one: jobledger up, or jobledger worker")


def _wait_for_proof(service: JobHistoryService, outcome: CancelOutcome, seconds: float) -> CancelOutcome:
    """Carry the cancel on in place of a leader, who may not be there."""
    deadline = time.monotonic() + seconds
    repeat_at = time.monotonic() + _REPEAT_INTERVAL
    while not outcome.is_proven and time.monotonic() < deadline:
        time.sleep(min(_WAIT_INTERVAL, max(0.0, deadline - time.monotonic())))
        status = service.get_job(outcome.job_id).status
        if status.is_terminal:
            return type(outcome)(job_id=outcome.job_id, status=status)
        if time.monotonic() >= repeat_at:
            outcome = _again(service, outcome)
            repeat_at = time.monotonic() + _REPEAT_INTERVAL
    return outcome


def _again(service: JobHistoryService, outcome: CancelOutcome) -> CancelOutcome:
    try:
        return service.cancel_job(outcome.job_id)
    except JobActionNotAllowed:
        return type(outcome)(job_id=outcome.job_id, status=service.get_job(outcome.job_id).status)


def _cancel_sentence(outcome: CancelOutcome) -> str:
    if not outcome.is_proven:
        return f"Job {outcome.job_id} is being cancelled: {outcome.waiting_for or 'not proven yet'}."
    if outcome.status == "CANCELLED":
        return f"Job {outcome.job_id} is CANCELLED."
    return f"Job {outcome.job_id} ended first: it is {outcome.status}."


def _cancel_code(outcome: CancelOutcome, wait: float) -> ExitCode:
    if outcome.is_proven:
        return ExitCode.DONE if outcome.status == "CANCELLED" else ExitCode.NOT_ALLOWED
    if not wait:
        return ExitCode.DONE
    note(f"It has not stopped after {wait:g} s; it is cancelled all the same as soon as it can be.")
    return ExitCode.TROUBLE
