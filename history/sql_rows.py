"""Rows of the table ``jobs`` as the driver gives them, for lists: fifty entries in a fraction of a millisecond.

SQLAlchemy's own conversion of a value costs more than the query that finds it, so that here the values stay raw until
an entry needs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, FromClause, type_coerce
from sqlalchemy.types import NULLTYPE

from .job import Evidence, FailureKind, JobEnd, JobFacts, JobHistoryEntry, JobStatus, Progress
from .schema import CompactJson, UtcMicroseconds, jobs

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_Row = Sequence[Any]

_NAMES: Final = tuple(jobs.c.keys())
#: Where the columns of the facts, the attempts, the end and the cancel begin.
_FACTS, _RUN, _END, _CANCEL = map(_NAMES.index, ("task", "requeue", "end_status", "cancel_requested_at"))
_EMPTY: Final = frozenset({None, "[]"})
_EVIDENCES: Final = {evidence.value: evidence for evidence in Evidence}
_STATUSES: Final = {status.value: status for status in JobStatus}
_FAILURE_KINDS: Final = {None: None} | {kind.value: kind for kind in FailureKind}
_STRINGS: Final = msgspec.json.Decoder(tuple[str, ...])
_ITEMS: Final = msgspec.json.Decoder(tuple[tuple[str, str], ...])


def raw_columns(source: FromClause = jobs) -> list[ColumnElement[Any]]:
    """Return the columns of ``jobs``, or of a subquery with the same, in the order that ``entries_of`` expects."""
    return [
        type_coerce(column, NULLTYPE).label(column.name)
        if isinstance(column.type, UtcMicroseconds | CompactJson)
        else column
        for column in (source.c[name] for name in _NAMES)
    ]


def entries_of(rows: Iterable[_Row]) -> list[JobHistoryEntry]:
    """Return the entries of rows that hold ``raw_columns`` first; equal to those of ``job_row.entry_of``."""
    return [_entry(row) for row in rows]


def moment_of(microseconds: int) -> datetime:
    """Return the moment of a raw value."""
    return _EPOCH + timedelta(0, 0, microseconds)


def microseconds_of(moment: datetime) -> int:
    """Return the raw value of a moment."""
    return (moment - _EPOCH) // _MICROSECOND


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _EPOCH + timedelta(0, 0, microseconds)


def _entry(row: _Row) -> JobHistoryEntry:
    # By hand, in the order of the table's columns: anything more general takes twice as long.
    job_id, created_at, _, _, _, _, rank = row[:7]
    requeue, retries, handed_over, started_at, attempt_started, run_id, run_worker_id = row[_RUN : _RUN + 7]
    run_boot_id, next_attempt_at, error, error_requeue, error_retries, published, uncertain = row[_RUN + 7 : _END]
    requested_at, actor, reason, delivered_at, obstacle, done, total, text, progress_at = row[_CANCEL : _CANCEL + 9]
    return JobHistoryEntry(
        job_id=job_id,
        created_at=moment_of(created_at),
        facts=_facts(row[_FACTS:_RUN]) if rank >= 0 else None,
        facts_rank=rank,
        requeue=requeue,
        retries=retries,
        handed_over=handed_over == 1,
        started_at=_moment(started_at),
        attempt_started=attempt_started == 1,
        run_id=run_id,
        run_worker_id=run_worker_id,
        run_boot_id=run_boot_id,
        next_attempt_at=_moment(next_attempt_at),
        end=_end(row[_END:_CANCEL]) if row[_END] is not None else None,
        retry_error=error,
        retry_error_key=None if error_requeue is None else (error_requeue, error_retries, error),
        published=published == 1,
        uncertain=uncertain == 1,
        cancel_requested_at=_moment(requested_at),
        cancel_actor=actor,
        cancel_reason=reason,
        cancel_delivered_at=_moment(delivered_at),
        cancel_obstacle=obstacle,
        progress=None if progress_at is None else Progress(done=done, total=total, text=text),
        progress_at=_moment(progress_at),
    )


def _facts(values: _Row) -> JobFacts:
    task, queue, priority, summary, tags, metadata, group_id, retry_of, root_id, overrides, grace, problem = values
    return JobFacts(
        task=task,
        queue=queue,
        priority=priority,
        payload_summary=summary,
        tags=_STRINGS.decode(tags) if tags not in _EMPTY else (),
        metadata=_ITEMS.decode(metadata) if metadata not in _EMPTY else (),
        group_id=group_id,
        retry_of=retry_of,
        root_id=root_id,
        overrides=overrides,
        cancel_grace=grace,
        snapshot_problem=problem,
    )


def _end(values: _Row) -> JobEnd:
    status, at, requeue, retries, evidence, run_id, worker_id, detail = values[:8]
    failure_kind, error_type, error_message, traceback, result_ref, runtime, provisional = values[8:]
    return JobEnd(
        status=_STATUSES[status],
        at=moment_of(at),
        requeue=requeue,
        retries=retries,
        evidence=_EVIDENCES[evidence],
        run_id=run_id,
        worker_id=worker_id,
        detail=detail,
        failure_kind=_FAILURE_KINDS[failure_kind],
        error_type=error_type,
        error_message=error_message,
        traceback=traceback,
        result_ref=result_ref,
        runtime=runtime,
        provisional=provisional == 1,
    )
