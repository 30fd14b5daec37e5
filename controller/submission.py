"""A submission, checked: refused with one sentence before anything is written or sent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ..errors import InvalidJob
from ..history.canonical import NotJson, plain_json
from ..history.event import now
from ..history.ids import new_id
from ..history.job import JobFacts
from ..history.job_history_store import JobSubmission
from ..history.labels import checked_group, checked_metadata, checked_tags
from ..history.redaction import summarise
from ..history.snapshot import SnapshotVault
from ..settings import Settings
from ..workers.message import MessageBody, seal
from ..workers.pipeline import PIPELINE_TASK, PipelineConfig, validate_pipeline
from ..workers.priorities import Priority, wire_priority

_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NAME_LENGTH: Final = 255


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """One job to submit: what Celery's ``apply_async`` takes, and what Jobledger adds.

    ``priority`` is a name or a number from 0 to 9 as the broker counts them. Times are in seconds.
    """

    task: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    priority: Priority | str | int | None = None
    queue: str | None = None
    job_id: str | None = None
    #: What it can be found by: words, a name that several jobs share, and texts with names. They are kept and shown as
    #: they are; ``history.labels`` has the limits.
    tags: Sequence[str] = ()
    group_id: str | None = None
    metadata: Mapping[str, str] = {}
    time_limit: float | None = None
    soft_time_limit: float | None = None
    headers: Mapping[str, Any] = {}
    #: When the job is no longer wanted, as an ISO 8601 moment.
    expires: str | None = None
    ignore_result: bool | None = None
    #: Another name for the task in Celery's logs.
    shadow: str | None = None
    #: Seconds between the cancel of this job and the kill; unset: the node's setting.
    cancel_grace: float | None = None
    retry_of: str | None = None
    root_id: str | None = None
    #: What a retry changed, as redacted JSON text.
    overrides: str | None = None


class PreparedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A checked submission: the ledger's row and the message, which agree."""

    record: JobSubmission
    body: MessageBody
    cancel_grace: float | None
    expires: str | None

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.record.job_id


def prepare(submission: Submission, app: Any, settings: Settings, vault: SnapshotVault | None) -> PreparedJob:
    """Check a submission and build its row and its message.

    Raises:
        InvalidJob: naming the field and what is allowed.
    """
    body = MessageBody(
        task=_known_task(submission.task, app),
        args=_plain(submission.args, "args", list),
        kwargs=_plain(submission.kwargs, "kwargs", dict),
        queue=_queue(submission.queue, submission.task, app),
        priority=wire_priority(submission.priority, app.connection_for_write().transport_cls),
        time_limit=_limit("time_limit", submission.time_limit),
        soft_time_limit=_limit("soft_time_limit", submission.soft_time_limit),
        ignore_result=submission.ignore_result,
        shadow=_name("shadow", submission.shadow),
        headers=_plain(submission.headers, "headers", dict),
    )
    if body.task == PIPELINE_TASK:
        body = _as_pipeline(body)
    _check_size(body, settings.payload_limit)
    _check_signature(app.tasks[body.task], body)
    sealed = seal(body, vault, settings.payload_limit * 2)
    facts = JobFacts(
        task=body.task,
        queue=body.queue,
        priority=body.priority,
        payload_summary=_summary(body),
        tags=checked_tags(submission.tags),
        metadata=checked_metadata(submission.metadata),
        group_id=checked_group(submission.group_id),
        retry_of=submission.retry_of,
        root_id=submission.root_id,
        overrides=submission.overrides,
        cancel_grace=_seconds("cancel_grace", submission.cancel_grace),
        snapshot_problem=sealed.problem,
    )
    record = JobSubmission(job_id=_job_id(submission.job_id), at=now(), facts=facts, snapshot=sealed.snapshot)
    return PreparedJob(record=record, body=body, cancel_grace=facts.cancel_grace, expires=submission.expires)


def _as_pipeline(body: MessageBody) -> MessageBody:
    """A pipeline is checked however it is submitted; what was resolved before stays as it is."""
    config = validate_pipeline(body.kwargs.get("config", body.args[0] if body.args else None))
    return msgspec.structs.replace(body, args=[], kwargs={"config": config.as_json()})


def _summary(body: MessageBody) -> str:
    """A pipeline says what it is about; of any other job the arguments are shown."""
    if body.task == PIPELINE_TASK:
        return PipelineConfig.model_validate(body.kwargs["config"]).summary()
    return summarise(body.args, body.kwargs)


def _known_task(name: str, app: Any) -> str:
    if name in app.tasks:
        return name
    known = sorted(task for task in app.tasks if not task.startswith("celery."))
    raise InvalidJob("task", f"there is no task {str(name)[:100]!r}; the application has {', '.join(known) or 'none'}")


def _plain(value: object, field: str, kind: type) -> Any:
    if isinstance(value, str) or (kind is dict) != isinstance(value, Mapping):
        wanted = "an object with names" if kind is dict else "a list"
        raise InvalidJob(field, f"must be {wanted}, not {type(value).__name__}")
    if kind is list and not isinstance(value, Sequence):
        raise InvalidJob(field, f"must be a list, not {type(value).__name__}")
    try:
        return plain_json(kind(value), field)
    except NotJson as error:
        raise InvalidJob(error.path or field, error.problem) from None


def _queue(name: str | None, task: str, app: Any) -> str:
    if name is not None:
        return _name("queue", name) or ""
    route = app.amqp.router.route({}, task)
    queue = getattr(app.tasks[task], "queue", None) or route.get("queue")
    return str(getattr(queue, "name", queue) or app.conf.task_default_queue)


def _name(field: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= _NAME_LENGTH or not value.isprintable():
        raise InvalidJob(field, f"must be 1 to {_NAME_LENGTH} printable characters")
    return value


def _limit(field: str, value: object) -> float | None:
    """Celery takes a limit of 0 for none."""
    if value == 0:
        raise InvalidJob(field, "must be more than 0 seconds; leave it out for a job without a limit")
    return _seconds(field, value)


def _seconds(field: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise InvalidJob(field, "must be a number of seconds, 0 or more")
    return value


def _job_id(job_id: object) -> str:
    if job_id is None:
        return new_id()
    if not isinstance(job_id, str) or not _ID.fullmatch(job_id):
        raise InvalidJob("job_id", "must be 1 to 128 letters, digits and the signs . _ : -")
    return job_id


def _check_size(body: MessageBody, limit: int) -> None:
    size = len(msgspec.json.encode([body.args, body.kwargs]))
    if size > limit:
        raise InvalidJob(
            "args", f"the payload has {size:,} bytes; the limit is {limit:,} (JOBLEDGER_PAYLOAD_LIMIT). Pass a path"
        )


def _check_signature(task: Any, body: MessageBody) -> None:
    if not task.typing:
        return
    try:
        task.__header__(*body.args, **body.kwargs)
    except TypeError as error:
        raise InvalidJob("args", f"do not fit {body.task}: {error}") from None
