"""The ids of the jobs that retention removed lately, in SQL: what comes in about them is dropped."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection

from .schema import pruned_jobs
from .sql_bulk import fetch
from .sql_statements import insert_unless_there, select_listed


def remember_pruned(connection: Connection, job_ids: Collection[str], moment: datetime) -> None:
    """Keep the ids of jobs that are being removed."""
    rows = [{"job_id": job_id, "removed_at": moment} for job_id in sorted(job_ids)]
    connection.execute(insert_unless_there(connection.dialect.name, pruned_jobs), rows)


def pruned_among(connection: Connection, job_ids: Collection[str]) -> set[str]:
    """Return which of the jobs, none of which has a row, retention removed."""
    if not job_ids:
        return set()
    query, parameters = select_listed(connection, pruned_jobs, "job_id", job_ids)
    return {job_id for job_id, _ in fetch(connection, query, parameters)}
