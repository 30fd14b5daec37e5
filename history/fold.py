"""How a job's events become its row.

Events arrive late, twice and out of order between processes. ``fold`` therefore only joins: each field takes
the greatest, the earliest or the union of what the events say, never "the last that came". Any order and any
repetition of a job's events gives the same row.

The written precedence of ends (``JobEnd.key``): a completion, in any attempt, wins; else the highest attempt
decides; inside it the job's own end beats the evidence of a death, which beats a removal, a denial or a verdict;
then FAILED beats CANCELLED; then the greater ``run_id``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from .event import EventKind, JobEvent
from .job import JobEnd, JobFacts, JobHistoryEntry, Progress

#: The rank of what a submission says about its job; nothing replaces it.
SUBMITTED_RANK = 3

_ORIGIN_RANK = {EventKind.SUBMITTED: SUBMITTED_RANK, EventKind.PUBLISHING: 2, EventKind.RECEIVED: 1}
#: What a new attempt makes of what was known of the one before.
_NO_RUN: Final[dict[str, Any]] = {
    "attempt_started": False,
    "run_id": None,
    "run_worker_id": None,
    "run_boot_id": None,
    "next_attempt_at": None,
}
_HANDED_OVER: Final = EventKind.HANDED_OVER
_STARTED: Final = EventKind.STARTED
_PUBLISHED: Final = EventKind.PUBLISHED
_RECEIVED: Final = EventKind.RECEIVED
_RETRYING: Final = EventKind.RETRYING


def fold(entry: JobHistoryEntry | None, event: JobEvent) -> JobHistoryEntry:
    """Return ``entry`` with ``event`` joined in; ``None`` stands for a job that nobody has recorded yet."""
    if entry is None:
        entry = JobHistoryEntry(job_id=event.job_id, created_at=event.at)
    changes: dict[str, Any] = {}
    if event.at < entry.created_at:
        changes["created_at"] = event.at
    if event.facts is not None:
        _join_facts(changes, entry, event, event.facts)
    _join_attempt(changes, entry, event)
    if event.end is not None:
        _join_end(changes, entry, event.end)
    if event.progress is not None:
        _join_progress(changes, entry, event, event.progress)
    _join_rest(changes, entry, event)
    return msgspec.structs.replace(entry, **changes) if changes else entry


def origin_rank(event: JobEvent) -> int:
    """Return how close to the job's origin the event is: the higher one's facts and snapshot are kept."""
    first_attempt = event.requeue == 0 and event.retries == 0
    return _ORIGIN_RANK.get(event.kind, 0) if first_attempt else 0


def _join_facts(changes: dict[str, Any], entry: JobHistoryEntry, event: JobEvent, facts: JobFacts) -> None:
    rank = origin_rank(event)
    if rank < entry.facts_rank:
        return
    if rank == entry.facts_rank and msgspec.json.encode(facts) <= msgspec.json.encode(entry.facts):
        return
    changes["facts"] = facts
    changes["facts_rank"] = rank


def _join_attempt(changes: dict[str, Any], entry: JobHistoryEntry, event: JobEvent) -> None:
    kind = event.kind
    is_start = kind is _STARTED
    is_run = is_start or kind is _HANDED_OVER
    if is_run and not entry.handed_over:
        changes["handed_over"] = True
    if is_start:
        changes["started_at"] = earliest(entry.started_at, event.at)
    attempt = _attempt_of(event)
    highest = (entry.requeue, entry.retries)
    if attempt < highest:
        return
    rises = attempt > highest
    if rises:
        changes.update(_NO_RUN, requeue=attempt[0], retries=attempt[1])
    if is_start:
        changes["attempt_started"] = True
    if is_run:
        _join_run(changes, None if rises else _run_of(entry), (event.run_id, event.worker_id, event.boot_id))
    if event.next_attempt_at is not None:
        changes["next_attempt_at"] = latest(None if rises else entry.next_attempt_at, event.next_attempt_at)


def _attempt_of(event: JobEvent) -> tuple[int, int]:
    """The attempt that the event speaks of: for a retry the one it announces, for an end the one it ended."""
    attempt = (event.requeue, event.retries + (event.kind is _RETRYING))
    return max(attempt, (event.end.requeue, event.end.retries)) if event.end else attempt


_Run = tuple[str | None, str | None, str | None]


def _run_of(entry: JobHistoryEntry) -> _Run:
    return entry.run_id, entry.run_worker_id, entry.run_boot_id


def _join_run(changes: dict[str, Any], known: _Run | None, seen: _Run) -> None:
    """Keep the greatest run; run ids are UUIDv7, so that is the latest hand-over."""
    if known is None or (seen != known and _comparable(seen) > _comparable(known)):
        changes["run_id"], changes["run_worker_id"], changes["run_boot_id"] = seen


def _comparable(parts: tuple[str | None, ...]) -> tuple[tuple[bool, str], ...]:
    """Order unknown before empty, so that no two different values tie."""
    return tuple((part is not None, part or "") for part in parts)


def _join_end(changes: dict[str, Any], entry: JobHistoryEntry, end: JobEnd) -> None:
    if entry.end is None or end.key > entry.end.key:
        changes["end"] = end


def _join_progress(changes: dict[str, Any], entry: JobHistoryEntry, event: JobEvent, progress: Progress) -> None:
    if entry.progress is not None and entry.progress_at is not None:
        seen = (event.at, msgspec.json.encode(progress))
        if seen <= (entry.progress_at, msgspec.json.encode(entry.progress)):
            return
    changes["progress"] = progress
    changes["progress_at"] = event.at


def _join_rest(changes: dict[str, Any], entry: JobHistoryEntry, event: JobEvent) -> None:
    """What one kind of event alone says."""
    kind = event.kind
    if kind is _PUBLISHED or kind is _RECEIVED:
        changes["published"] = True
    elif kind is _RETRYING:
        _join_retry_error(changes, entry, event)
    elif kind is EventKind.DISPATCH_UNCERTAIN:
        changes["uncertain"] = True
    elif kind is EventKind.CANCEL_REQUESTED:
        _join_cancel_request(changes, entry, event)
    elif kind is EventKind.CANCEL_DELIVERED:
        _join_cancel_delivery(changes, entry, event)


def _join_retry_error(changes: dict[str, Any], entry: JobHistoryEntry, event: JobEvent) -> None:
    if event.text is None:
        return
    key = (event.requeue, event.retries, event.text)
    if entry.retry_error_key is None or key > entry.retry_error_key:
        changes["retry_error"] = event.text
        changes["retry_error_key"] = key


def _join_cancel_request(changes: dict[str, Any], entry: JobHistoryEntry, event: JobEvent) -> None:
    seen = (event.at, _comparable((event.actor, event.reason)))
    known = entry.cancel_requested_at
    if known is None or seen < (known, _comparable((entry.cancel_actor, entry.cancel_reason))):
        changes.update(cancel_requested_at=event.at, cancel_actor=event.actor, cancel_reason=event.reason)


def _join_cancel_delivery(changes: dict[str, Any], entry: JobHistoryEntry, event: JobEvent) -> None:
    changes["cancel_delivered_at"] = earliest(entry.cancel_delivered_at, event.at)
    if event.text is not None:
        changes["cancel_obstacle"] = max(entry.cancel_obstacle or "", event.text)


def earliest(known: datetime | None, seen: datetime) -> datetime:
    """Return the earlier of two moments; an unknown one does not count."""
    return seen if known is None else min(known, seen)


def latest(known: datetime | None, seen: datetime) -> datetime:
    """Return the later of two moments; an unknown one does not count."""
    return seen if known is None else max(known, seen)
