"""The cancel intents: who asked for which job's end."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, insert, select

from .job import JobHistoryEntry
from .job_history_store import CancelIntent, request_cancel_event
from .recordable import recordable
from .schema import BEING_CANCELLED, cancel_intents, jobs
from .sql_recording import locked_entries, record_events


def request_cancel(connection: Connection, intent: CancelIntent) -> JobHistoryEntry | None:
    """Commit the intent and its event, unless the job is unknown, has ended, or has an intent already."""
    entry = locked_entries(connection, [intent.job_id]).get(intent.job_id)
    if entry is None or entry.status.is_terminal or has_cancel_intent(connection, intent.job_id):
        return entry
    request = recordable(request_cancel_event(intent))
    event = request.event
    row = {"job_id": event.job_id, "requested_at": event.at, "actor": event.actor, "reason": event.reason}
    connection.execute(insert(cancel_intents), row)
    return record_events(connection, [request]).entries[event.job_id]


def open_cancels(connection: Connection, limit: int) -> list[CancelIntent]:
    """Return the intents whose jobs have not ended, oldest first."""
    query = (
        select(cancel_intents)
        .join(jobs, jobs.c.job_id == cancel_intents.c.job_id)
        .where(BEING_CANCELLED)
        .order_by(jobs.c.cancel_requested_at, jobs.c.job_id)
        .limit(limit)
    )
    return [CancelIntent(**row) for row in connection.execute(query).mappings()]


def cancelled_ids_since(connection: Connection, moment: datetime) -> list[str]:
    """Return the ids of all intents since the moment, oldest first."""
    query = (
        select(cancel_intents.c.job_id)
        .where(cancel_intents.c.requested_at >= moment)
        .order_by(cancel_intents.c.requested_at, cancel_intents.c.job_id)
    )
    return list(connection.scalars(query))


def has_cancel_intent(connection: Connection, job_id: str) -> bool:
    """Whether somebody asked for the job's end."""
    return connection.scalar(select(cancel_intents.c.job_id).where(cancel_intents.c.job_id == job_id)) is not None
