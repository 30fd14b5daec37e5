"""What Jobledger reads from and writes into a Celery message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from kombu.utils import json as kombu_json

from ..errors import InvalidJob
from ..history.job import JobFacts, Snapshot
from ..history.labels import checked_group, checked_metadata, checked_tags
from ..history.redaction import summarise
from ..history.snapshot import NO_KEY, SnapshotVault
from .runs import RunKey

logger = logging.getLogger("jobledger.message")

#: The message header that Jobledger owns.
HEADER: Final = "jobledger"
SNAPSHOT_VERSION: Final = 1
_dumps: Final[Callable[[Any], str]] = kombu_json.dumps
_loads: Final[Callable[[str], Any]] = kombu_json.loads
_QUEUE_SEPARATOR: Final = "\x06\x16"

#: Headers of Celery's own protocol; all others are the sender's and are kept for a retry.
_CELERY_HEADERS: Final = frozenset(
    {"lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id"}
    | {"parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers"}
    | {"stamps", "compression", "redelivered", HEADER}
)
#: What a worker adds to a request's headers after it received the message.
_DELIVERY_KEYS: Final = frozenset(
    {"properties", "reply_to", "correlation_id", "hostname", "delivery_info", "args", "kwargs", "callbacks"}
    | {"errbacks", "chain", "chord"}
)


class RunHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a node tells the process that runs the job."""

    run_id: str
    boot_id: str
    node: str
    board: str
    slot: int | None


class JobHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Jobledger's header: who has recorded the job already, which requeue this is, and what its sender says of it.

    A sender that uses plain Celery may set ``tags``, ``group_id`` and ``metadata`` itself, see ``labels_of``.
    """

    #: Whether the job's facts and body are in the ledger or in a journal already.
    known: bool = False
    #: Whether the controller wrote the job and publishes it now: nothing needs to be journalled.
    submitted: bool = False
    requeue: int = 0
    #: Seconds between a cancel and the kill, where the job sets its own.
    grace: float | None = None
    #: As the sender wrote them, unchecked.
    tags: Any = ()
    group_id: Any = None
    metadata: Any = {}
    #: Added by the node when it hands the job over; never sent.
    run: RunHeader | None = None


def read_header(headers: Mapping[str, Any]) -> JobHeader:
    """Return Jobledger's header of a message; an empty one where it is missing or not ours."""
    try:
        return msgspec.convert(headers.get(HEADER) or {}, JobHeader)
    except msgspec.ValidationError:
        return JobHeader()


def header_value(header: JobHeader) -> dict[str, Any]:
    """Return the header in the form that goes into a message."""
    value: dict[str, Any] = msgspec.to_builtins(header)
    return value


def key_of(job_id: str, headers: Mapping[str, Any]) -> RunKey:
    """Return which attempt of a job a message is."""
    return RunKey(job_id, read_header(headers).requeue, int(headers.get("retries") or 0))


class MessageBody(msgspec.Struct, frozen=True, kw_only=True):
    """A job's message as the ledger snapshots it, and as a retry repeats it.

    A moment at which the message expires is not part of it: for the retry it would be past.
    """

    task: str
    args: Any
    kwargs: Any
    queue: str | None = None
    priority: int | None = None
    time_limit: int | float | None = None
    soft_time_limit: int | float | None = None
    ignore_result: bool | None = None
    shadow: str | None = None
    headers: dict[str, Any] = {}
    version: int = SNAPSHOT_VERSION


def body_of_publish(
    task: str, body: Any, headers: Mapping[str, Any], priority: int | None, queue: str | None
) -> MessageBody:
    """Return the body of a message that is being published; raises ``ValueError`` for arguments that are not JSON."""
    return _body(task, body[:2], headers, priority, queue)


def body_of_delivery(request: Any) -> MessageBody:
    """Return the body of a message that a worker received; raises ``ValueError`` for arguments that are not JSON."""
    info = request.delivery_info
    arguments = (request.args, request.kwargs)
    return _body(request.name, arguments, request.request_dict, info.get("priority"), queue_of(info.get("routing_key")))


def _body(
    task: str, arguments: Any, headers: Mapping[str, Any], priority: int | None, queue: str | None
) -> MessageBody:
    args, kwargs = _as_json(arguments)
    hard, soft = headers.get("timelimit") or (None, None)
    return MessageBody(
        task=task,
        args=args,
        kwargs=kwargs,
        queue=queue,
        priority=priority,
        time_limit=hard,
        soft_time_limit=soft,
        ignore_result=headers.get("ignore_result"),
        shadow=headers.get("shadow"),
        headers=_own_headers(headers),
    )


def _own_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    known = _CELERY_HEADERS | _DELIVERY_KEYS
    stamps = set(headers.get("stamped_headers") or ())
    own = {name: value for name, value in headers.items() if name not in known and name not in stamps}
    jsonable: dict[str, Any] = _as_json(own)
    return jsonable


def queue_of(routing_key: str | None) -> str | None:
    """Return the queue's name without the suffix of its priority level."""
    return routing_key.split(_QUEUE_SEPARATOR, 1)[0] if routing_key else None


def _as_json(value: Any) -> Any:
    """Return the value as Celery's JSON says it, with its marks for dates and the like."""
    return msgspec.json.decode(_dumps(value))


def from_json(value: Any) -> Any:
    """Return what the receiver of the message gets: the opposite of what Celery's JSON did."""
    return _loads(msgspec.json.encode(value).decode())


class Sealed(msgspec.Struct, frozen=True):
    """A snapshot, or the reason why there is none."""

    snapshot: Snapshot | None
    problem: str | None


def seal(body: MessageBody, vault: SnapshotVault | None, limit: int) -> Sealed:
    """Return the sealed snapshot of a message, or the reason why no retry will be possible."""
    if vault is None:
        return Sealed(None, NO_KEY)
    snapshot = vault.seal(body)
    if snapshot.size > limit:
        return Sealed(None, f"its arguments are too large to keep ({snapshot.size:,} bytes; the limit is {limit:,})")
    return Sealed(snapshot, None)


def facts_of(body: MessageBody, headers: Mapping[str, Any], problem: str | None) -> JobFacts:
    """Return what the ledger shows of a job that was sent without Jobledger's controller."""
    return JobFacts(
        task=body.task,
        queue=body.queue,
        priority=body.priority,
        payload_summary=summarise(body.args, body.kwargs),
        cancel_grace=read_header(headers).grace,
        snapshot_problem=problem,
        **labels_of(headers),
    )


def labels_of(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message's labels as a job's facts have them.

    A sender sets them by ``apply_async(args, headers={"jobledger": {"tags": ["monthly"], "group_id": "october",
    "metadata": {"customer": "7"}}})``; the members of a Celery group have its id for their group. What cannot be a
    label is left out, and a warning says so: the job is on its way already.
    """
    header = read_header(headers)
    return {
        "tags": _usable(checked_tags, header.tags, ()),
        "group_id": _usable(checked_group, header.group_id or headers.get("group"), None),
        "metadata": _usable(checked_metadata, header.metadata, ()),
    }


def _usable(check: Callable[[object], Any], value: object, nothing: object) -> Any:
    try:
        return check(value)
    except InvalidJob as error:
        logger.warning("A label of a job is left out: %s", error)
        return nothing
