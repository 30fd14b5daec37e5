"""Builds the submission that repeats an ended job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..errors import InvalidJob, JobActionNotAllowed, JobNotFound, SnapshotUnavailable
from ..history.job import JobHistoryEntry
from ..history.job_history_store import JobHistoryStore
from ..history.redaction import redact
from ..history.snapshot import NO_KEY, SnapshotVault
from ..workers.message import SNAPSHOT_VERSION, MessageBody
from ..workers.pipeline import PIPELINE_TASK
from .submission import Submission

_PLAIN_FIELDS: Final = ("queue", "priority", "time_limit", "soft_time_limit")


def resubmission(
    store: JobHistoryStore, vault: SnapshotVault | None, job_id: str, overrides: Mapping[str, Any]
) -> Submission:
    """Return what must be submitted to repeat a job.

    Args:
        overrides: What is to differ: ``{"kwargs.steps": 30, "args.0": "b.jpg", "priority": "high"}``; for a pipeline
            also a field of its config, ``{"seed": 7}``.

    Raises:
        JobNotFound, JobActionNotAllowed, SnapshotUnavailable: when it cannot be repeated, saying why.
        InvalidJob: naming the override that does not fit.
    """
    entry = store.get_job(job_id)
    if entry is None:
        raise JobNotFound(job_id)
    if not entry.status.is_terminal:
        raise JobActionNotAllowed(job_id, "retry", entry.status)
    body = open_body(store, vault, entry)
    facts = entry.facts
    return Submission(
        **with_overrides(body, overrides),
        tags=facts.tags if facts else (),
        group_id=facts.group_id if facts else None,
        metadata=dict(facts.metadata) if facts else {},
        cancel_grace=facts.cancel_grace if facts else None,
        retry_of=job_id,
        root_id=(facts.root_id if facts else None) or job_id,
        overrides=msgspec.json.encode(redact(dict(overrides))).decode() if overrides else None,
    )


def open_body(store: JobHistoryStore, vault: SnapshotVault | None, entry: JobHistoryEntry) -> MessageBody:
    """Return the exact message body of a job; raises ``SnapshotUnavailable`` with the reason why it is not known."""
    if entry.facts is None:
        raise SnapshotUnavailable(entry.job_id, "nobody recorded its arguments")
    if entry.facts.snapshot_problem is not None:
        raise SnapshotUnavailable(entry.job_id, entry.facts.snapshot_problem)
    if vault is None:
        raise SnapshotUnavailable(entry.job_id, NO_KEY)
    snapshot = store.get_snapshot(entry.job_id)
    if snapshot is None:
        raise SnapshotUnavailable(entry.job_id, "its arguments are not in the ledger")
    data = vault.open(snapshot)
    if data is None:
        raise SnapshotUnavailable(
            entry.job_id, f"its arguments are sealed with another key (fingerprint {snapshot.key_fingerprint})"
        )
    return _read(entry.job_id, data)


def _read(job_id: str, data: bytes) -> MessageBody:
    try:
        body = msgspec.json.decode(data, type=MessageBody)
    except msgspec.ValidationError as error:
        raise SnapshotUnavailable(job_id, f"its snapshot cannot be read ({error})") from None
    if body.version != SNAPSHOT_VERSION:
        raise SnapshotUnavailable(job_id, f"its snapshot has version {body.version}; this Jobledger reads 1")
    return body


def with_overrides(body: MessageBody, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body's fields with the overrides in their places; raises ``InvalidJob`` for one without a place."""
    fields: dict[str, Any] = msgspec.to_builtins(body)
    del fields["version"]
    for name, value in overrides.items():
        _set(fields, _path(name, body), name, value)
    return fields


def _path(name: str, body: MessageBody) -> list[str]:
    head, *rest = name.split(".")
    if name in _PLAIN_FIELDS or (head in ("args", "kwargs") and rest):
        return [head, *rest]
    if body.task == PIPELINE_TASK and head not in ("args", "kwargs"):
        return ["kwargs", "config", head, *rest]
    raise InvalidJob(name, f"cannot be overridden; use args.N, kwargs.NAME, {', '.join(_PLAIN_FIELDS)}")


def _set(target: Any, path: list[str], name: str, value: Any) -> None:
    *parents, last = path
    for step in parents:
        target = _step_into(target, step, name)
    if isinstance(target, list):
        target[_index(target, last, name)] = value
    elif isinstance(target, dict):
        target[last] = value
    else:
        raise InvalidJob(name, f"has no place: {type(target).__name__} has no parts")


def _step_into(target: Any, step: str, name: str) -> Any:
    if isinstance(target, list):
        return target[_index(target, step, name)]
    if isinstance(target, dict) and step in target:
        return target[step]
    raise InvalidJob(name, f"has no place: there is no {step!r}")


def _index(target: list[Any], step: str, name: str) -> int:
    if not step.isdigit() or int(step) >= len(target):
        raise InvalidJob(name, f"has no place: the list has {len(target)} parts, counted from 0")
    return int(step)
