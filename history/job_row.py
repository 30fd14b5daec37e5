"""A job's entry as a row of the table ``jobs``, and back."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping

from .failure_group import failure_group_of
from .job import Evidence, FailureKind, JobEnd, JobFacts, JobHistoryEntry, JobStatus, Progress

_FACTS = JobFacts.__struct_fields__
_END = JobEnd.__struct_fields__
_NO_FACTS: dict[str, Any] = dict.fromkeys(_FACTS)
_NO_END: dict[str, Any] = {f"end_{name}": None for name in _END}
_PLAIN = tuple(
    name for name in JobHistoryEntry.__struct_fields__ if name not in {"facts", "end", "progress", "retry_error_key"}
)


def row_of(entry: JobHistoryEntry) -> dict[str, Any]:
    """Return the row, with the columns that filters need derived from the entry."""
    row = {name: getattr(entry, name) for name in _PLAIN}
    row.update(status=entry.status.value, worker_id=entry.worker_id, completed_at=entry.completed_at)
    group = failure_group_of(entry.effective_end)
    row["failure_group"] = group.fingerprint if group else None
    row.update(_facts_columns(entry.facts))
    row.update(_end_columns(entry.end))
    row.update(_retry_columns(entry))
    row.update(_progress_columns(entry.progress))
    return row


def entry_of(row: RowMapping) -> JobHistoryEntry:
    """Return the entry that ``row_of`` was given."""
    return JobHistoryEntry(
        **{name: row[name] for name in _PLAIN},
        facts=_facts(row),
        end=_end(row),
        retry_error_key=_retry_error_key(row),
        progress=_progress(row),
    )


def _facts_columns(facts: JobFacts | None) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in _FACTS} if facts else _NO_FACTS


def _end_columns(end: JobEnd | None) -> dict[str, Any]:
    if end is None:
        return _NO_END
    columns = {f"end_{name}": getattr(end, name) for name in _END}
    columns["end_status"] = end.status.value
    columns["end_evidence"] = int(end.evidence)
    columns["end_failure_kind"] = end.failure_kind.value if end.failure_kind else None
    return columns


def _retry_columns(entry: JobHistoryEntry) -> dict[str, Any]:
    requeue, retries, _ = entry.retry_error_key or (None, None, None)
    return {"retry_error_requeue": requeue, "retry_error_retries": retries}


def _progress_columns(progress: Progress | None) -> dict[str, Any]:
    if progress is None:
        return {"progress_done": None, "progress_total": None, "progress_text": None}
    return {"progress_done": progress.done, "progress_total": progress.total, "progress_text": progress.text}


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
