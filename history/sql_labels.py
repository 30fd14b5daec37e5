"""The labels of jobs, in SQL: for each tag and each item of metadata, its jobs in a list's order."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from .job import JobHistoryEntry
from .schema import job_labels
from .sql_bulk import deleting, inserting, merge_rows
from .sql_rows import microseconds_of

#: The name under which tags are kept; metadata has a name of its own.
TAG: Final = ""

_COLUMNS: Final = tuple(job_labels.c.keys())

_Row = tuple[Any, ...]
_NO_LABELS: Final[frozenset[_Row]] = frozenset()


def relabel(connection: Connection, known: Mapping[str, JobHistoryEntry], entries: Iterable[JobHistoryEntry]) -> None:
    """Make the labels those of the entries, which until now were as ``known``."""
    added: list[_Row] = []
    removed: list[_Row] = []
    for entry in entries:
        old, new = _labels(known.get(entry.job_id)), _labels(entry)
        if old != new:
            removed += old - new
            added += new - old
    _remove(connection, removed)
    merge_rows(connection, _adding(connection.dialect.name), _COLUMNS, sorted(added))


def remove_labels(connection: Connection, entries: Iterable[JobHistoryEntry]) -> None:
    """Remove the labels of jobs that retention removes."""
    _remove(connection, [label for entry in entries for label in _labels(entry)])


def _remove(connection: Connection, rows: list[_Row]) -> None:
    merge_rows(connection, deleting(connection.dialect.name, job_labels, _COLUMNS), _COLUMNS, sorted(rows))


def _labels(entry: JobHistoryEntry | None) -> frozenset[_Row]:
    if entry is None or entry.facts is None or not (entry.facts.tags or entry.facts.metadata):
        return _NO_LABELS
    names = [(TAG, tag) for tag in entry.facts.tags] + list(entry.facts.metadata)
    moment = microseconds_of(entry.created_at)
    return frozenset((name, value, entry.status.value, moment, entry.job_id) for name, value in names)


@functools.cache
def _adding(dialect: str) -> sqlite.Insert | postgresql.Insert:
    return inserting(dialect, job_labels, _COLUMNS).on_conflict_do_nothing()
