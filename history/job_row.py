"""A job's entry as a row of the table ``jobs``, and back."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import RowMapping

from .failure_group import failure_group_of
from .job import Evidence, FailureKind, JobEnd, JobFacts, JobHistoryEntry, JobStatus, Progress
from .sql_rows import microseconds_of

_FACTS: Final = JobFacts.__struct_fields__
_END: Final = JobEnd.__struct_fields__
_NO_FACTS: Final[tuple[Any, ...]] = (None,) * len(_FACTS)
_NO_END: Final[tuple[Any, ...]] = (None,) * len(_END)
_PLAIN: Final = tuple(
    name for name in JobHistoryEntry.__struct_fields__ if name not in {"facts", "end", "progress", "retry_error_key"}
)


def row_of(entry: JobHistoryEntry) -> tuple[Any, ...]:
    """Return the row as a driver takes it: raw values in the order of the table's columns, filters' columns derived."""
    end = entry.effective_end
    status = entry.status
    group = failure_group_of(entry) if status is JobStatus.FAILED else None
    requeue, retries, _ = entry.retry_error_key or (None, None, None)
    progress = entry.progress
    return (
        entry.job_id,
        microseconds_of(entry.created_at),
        status.value,
        entry.worker_id,
        microseconds_of(end.at) if end is not None else None,
        group.fingerprint if group is not None else None,
        entry.facts_rank,
        *(_facts_values(entry.facts) if entry.facts is not None else _NO_FACTS),
        entry.requeue,
        entry.retries,
        entry.handed_over,
        _microseconds(entry.started_at),
        entry.attempt_started,
        entry.run_id,
        entry.run_worker_id,
        entry.run_boot_id,
        _microseconds(entry.next_attempt_at),
        entry.retry_error,
        requeue,
        retries,
        entry.published,
        entry.uncertain,
        *(_end_values(entry.end) if entry.end is not None else _NO_END),
        _microseconds(entry.cancel_requested_at),
        entry.cancel_actor,
        entry.cancel_reason,
        _microseconds(entry.cancel_delivered_at),
        entry.cancel_obstacle,
        *((progress.done, progress.total, progress.text) if progress is not None else (None, None, None)),
        _microseconds(entry.progress_at),
    )


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else microseconds_of(moment)


def _facts_values(facts: JobFacts) -> tuple[Any, ...]:
    return (
        facts.task,
        facts.queue,
        facts.priority,
        facts.payload_summary,
        _json(facts.tags),
        _json(facts.metadata),
        facts.group_id,
        facts.retry_of,
        facts.root_id,
        facts.overrides,
        facts.cancel_grace,
        facts.snapshot_problem,
    )


def _json(items: tuple[Any, ...]) -> str:
    return msgspec.json.encode(items).decode() if items else "[]"


def _end_values(end: JobEnd) -> tuple[Any, ...]:
    return (
        end.status.value,
        microseconds_of(end.at),
        end.requeue,
        end.retries,
        int(end.evidence),
        end.run_id,
        end.worker_id,
        end.detail,
        end.failure_kind.value if end.failure_kind is not None else None,
        end.error_type,
        end.error_message,
        end.traceback,
        end.result_ref,
        end.runtime,
        end.provisional,
    )


def entry_of(row: RowMapping) -> JobHistoryEntry:
    """Return the entry of a row that SQLAlchemy read."""
    return JobHistoryEntry(
        **{name: row[name] for name in _PLAIN},
        facts=_facts(row),
        end=_end(row),
        retry_error_key=_retry_error_key(row),
        progress=_progress(row),
    )


def _facts(row: RowMapping) -> JobFacts | None:
    if row["facts_rank"] < 0:
        return None
    values = {name: row[name] for name in _FACTS}
    values["tags"] = tuple(values["tags"])
    values["metadata"] = tuple((key, value) for key, value in values["metadata"] or ())
    return JobFacts(**values)


def _end(row: RowMapping) -> JobEnd | None:
    if row["end_status"] is None:
        return None
    values = {name: row[f"end_{name}"] for name in _END}
    values["status"] = JobStatus(values["status"])
    values["evidence"] = Evidence(values["evidence"])
    values["failure_kind"] = FailureKind(values["failure_kind"]) if values["failure_kind"] else None
    return JobEnd(**values)


def _retry_error_key(row: RowMapping) -> tuple[int, int, str] | None:
    if row["retry_error_requeue"] is None:
        return None
    return row["retry_error_requeue"], row["retry_error_retries"], row["retry_error"]


def _progress(row: RowMapping) -> Progress | None:
    if row["progress_at"] is None:
        return None
    return Progress(done=row["progress_done"], total=row["progress_total"], text=row["progress_text"])
