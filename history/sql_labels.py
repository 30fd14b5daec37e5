"""The labels of jobs, in SQL: for each tag and each item of metadata, its jobs in a list's order."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, Delete, bindparam, delete

from .job import JobHistoryEntry
from .schema import job_labels
from .sql_statements import insert_unless_there

#: The name under which tags are kept; metadata has a name of its own.
TAG: Final = ""

_Row = tuple[Any, ...]


def relabel(connection: Connection, known: Mapping[str, JobHistoryEntry], entries: Iterable[JobHistoryEntry]) -> None:
    """Make the labels those of the entries, which until now were as ``known``."""
    added: list[_Row] = []
    removed: list[_Row] = []
    for entry in entries:
        old, new = _labels(known.get(entry.job_id)), _labels(entry)
        removed += old - new
        added += new - old
    _execute(connection, _removing(), removed)
    _execute(connection, insert_unless_there(connection.dialect.name, job_labels), added)


def remove_labels(connection: Connection, entries: Iterable[JobHistoryEntry]) -> None:
    """Remove the labels of jobs that retention removes."""
    _execute(connection, _removing(), [label for entry in entries for label in _labels(entry)])


def _labels(entry: JobHistoryEntry | None) -> set[_Row]:
    if entry is None or entry.facts is None or not (entry.facts.tags or entry.facts.metadata):
        return set()
    names = [(TAG, tag) for tag in entry.facts.tags] + list(entry.facts.metadata)
    return {(name, value, entry.status.value, entry.created_at, entry.job_id) for name, value in names}


def _execute(connection: Connection, statement: Any, rows: list[_Row]) -> None:
    if rows:
        connection.execute(statement, [dict(zip(job_labels.c.keys(), row, strict=True)) for row in sorted(rows)])


@functools.cache
def _removing() -> Delete:
    return delete(job_labels).where(*(column == bindparam(column.name) for column in job_labels.c))
