"""The view of a job from its ledger entry alone."""

from __future__ import annotations

from typing import Final

from ..history.job import ACTIVE_STATUSES, JobFacts, JobHistoryEntry, JobStatus
from ..workers.priorities import priority_name
from .job_view import JobViewModel

ACTIONS_DISABLED: Final = "job actions are disabled here; set JOBLEDGER_JOB_ACTIONS_ENABLED=true"
_NO_FACTS: Final = JobFacts(task="")


def view_of(entry: JobHistoryEntry, *, actions_enabled: bool = True) -> JobViewModel:
    """Return what the ledger alone says about a job; what the workers say now is added by ``merge``."""
    facts = entry.facts or _NO_FACTS
    end = entry.effective_end
    cancel_refusal = _cancel_refusal(entry, actions_enabled)
    retry_refusal = _retry_refusal(entry, actions_enabled)
    return JobViewModel(
        job_id=entry.job_id,
        status=entry.status,
        created_at=entry.created_at,
        started_at=entry.started_at,
        completed_at=entry.completed_at,
        task=entry.task,
        payload_summary=facts.payload_summary,
        is_active=entry.status in ACTIVE_STATUSES,
        last_error=entry.last_error,
        failure_kind=end.failure_kind if end else None,
        worker_id=entry.worker_id,
        priority=facts.priority,
        priority_name=priority_name(facts.priority),
        queue=facts.queue,
        attempt=entry.attempt,
        next_attempt_at=entry.next_attempt_at if entry.status is JobStatus.QUEUED else None,
        progress=entry.progress,
        can_cancel=cancel_refusal is None,
        cancel_refusal=cancel_refusal,
        can_retry=retry_refusal is None,
        retry_refusal=retry_refusal,
        cancel_requested_at=entry.cancel_requested_at,
        cancel_actor=entry.cancel_actor,
        cancel_reason=entry.cancel_reason,
        cancel_state=_cancel_state(entry),
        retry_of=facts.retry_of,
        root_id=facts.root_id,
        tags=facts.tags,
        group_id=facts.group_id,
        metadata=dict(facts.metadata),
        result_ref=end.result_ref if end else None,
        runtime=end.runtime if end else None,
        dispatch_uncertain=entry.dispatch_uncertain,
        end_detail=end.detail if end else None,
    )


def _cancel_refusal(entry: JobHistoryEntry, actions_enabled: bool) -> str | None:
    if entry.status.is_terminal:
        return f"it is {entry.status} already"
    return None if actions_enabled else ACTIONS_DISABLED


def _retry_refusal(entry: JobHistoryEntry, actions_enabled: bool) -> str | None:
    if not entry.status.is_terminal:
        return "it has not ended yet"
    if entry.facts is None:
        return "nobody recorded its arguments"
    return entry.facts.snapshot_problem or (None if actions_enabled else ACTIONS_DISABLED)


def _cancel_state(entry: JobHistoryEntry) -> str | None:
    if entry.cancel_requested_at is None:
        return None
    if entry.status is JobStatus.CANCELLED:
        return "cancelled"
    if entry.status.is_terminal:
        return f"the cancel came too late: it is {entry.status}"
    if entry.cancel_obstacle:
        return f"cancelling: {entry.cancel_obstacle}"
    if entry.cancel_delivered_at is not None:
        return "cancelling: told to stop"
    if entry.run_worker_id is not None:
        return f"cancelling: waiting for node {entry.run_worker_id}"
    return "cancelling: waiting for the proof that it never starts"
