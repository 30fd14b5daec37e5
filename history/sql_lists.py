"""The lists of jobs: newest first, ties by id, each page found by an index."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, select

from .job import JobHistoryEntry, JobStatus
from .job_cursor import JobCursor, cursor_of
from .job_history_store import JobFilter, JobPage
from .schema import jobs
from .sql_bulk import fetch
from .sql_filters import Parameters, Place, Question, Shape, between, question_of, reach_statement, rows_statement
from .sql_rows import entries_of, microseconds_of, moment_of, raw_columns
from .sql_search import Found, search

#: How many jobs a page looks at, at most, when no index covers its filter: in steps, since most need only the first.
SCAN_STEPS: Final = (200, 800, 4_000)
SCAN_LIMIT: Final = sum(SCAN_STEPS)
#: How many jobs may arrive between a step's two statements: without room for them the oldest ones would be left out.
_ARRIVALS: Final = 5_000

_LARGEST_OFFSET: Final = 2**62
_FIRST: Final = microseconds_of(datetime.min.replace(tzinfo=UTC))


def list_entries(connection: Connection, status: JobStatus | None, limit: int, offset: int) -> list[JobHistoryEntry]:
    """Return entries by their number in the list; ``limit`` is taken as it is."""
    values: Parameters = {"limit": limit, "offset": max(0, min(offset, _LARGEST_OFFSET))}
    if status is not None:
        values["status"] = status.value
    return entries_of(fetch(connection, _listing(status is not None), values))


@functools.cache
def _listing(of_one_status: bool) -> Any:
    query = select(*raw_columns()).order_by(jobs.c.created_at.desc(), jobs.c.job_id.desc())
    query = query.limit(bindparam("limit")).offset(bindparam("offset"))
    return query.where(jobs.c.status == bindparam("status")) if of_one_status else query


def page_of(connection: Connection, wanted: JobFilter, after: JobCursor | None, limit: int) -> JobPage:
    """Return the page after the cursor; ``limit`` is at least 1."""
    question = question_of(wanted, after)
    if question is None:
        return JobPage(entries=())
    # One more than the page holds tells whether there is a next one.
    found = _found(connection, question, limit + 1)
    entries = tuple(entries_of(found.rows[:limit]))
    if len(found.rows) > limit:
        return JobPage(entries=entries, next_cursor=cursor_of(entries[-1].created_at, entries[-1].job_id))
    return JobPage(entries=entries, next_cursor=_cursor_at(found.stopped_at) if found.stopped_at else None)


def _found(connection: Connection, question: Question, limit: int) -> Found:
    if not question.words:
        return _read(connection, question, limit)
    found = search(connection, question, limit)
    if found.stopped_at is None or len(found.rows) >= limit or question.shapes[0].way.kind in {"age", "status"}:
        return found
    # The words are common; perhaps few jobs fit the rest.
    other = _read(connection, question, limit)
    is_further = other.stopped_at is None or len(other.rows) >= limit or other.stopped_at < found.stopped_at
    return other if is_further else found


class _Stretch(NamedTuple):
    """Where to look, and at how many jobs."""

    before: Place
    since: Place
    keys: int

    def values(self) -> Parameters:
        return between(self.before, self.since) | {"keys": self.keys}


def _read(connection: Connection, question: Question, limit: int) -> Found:
    [shape, *others] = question.shapes
    if not shape.checks:
        return Found(_rows(connection, question, shape, _Stretch(question.before, question.since, limit), limit), None)
    return _scanned(connection, question, [shape, *others], limit)


def _scanned(connection: Connection, question: Question, shapes: list[Shape], limit: int) -> Found:
    rows: list[Any] = []
    before = question.before
    for step in SCAN_STEPS:
        # First how far to look, then all that is there by then: what arrives in between is not looked at twice.
        reach, shape = _farthest(connection, question, shapes, _Stretch(before, question.since, step))
        stretch = _Stretch(before, reach or question.since, step + _ARRIVALS)
        rows += _rows(connection, question, shape, stretch, limit - len(rows))
        if reach is None or len(rows) >= limit:
            return Found(rows, None)
        before = reach
    return Found(rows, before)


def _farthest(
    connection: Connection, question: Question, shapes: list[Shape], stretch: _Stretch
) -> tuple[Place | None, Shape]:
    """Which of the ways reaches back farthest: it finds the fewest jobs that do not fit the rest."""
    farthest: tuple[Place | None, Shape] = (stretch.before, shapes[0])
    for shape in shapes:
        reach = _reach(connection, question, shape, stretch)
        if reach is None:
            return None, shape
        if farthest[0] is not None and reach < farthest[0]:
            farthest = reach, shape
    return farthest


def _reach(connection: Connection, question: Question, shape: Shape, stretch: _Stretch) -> Place | None:
    values = question.values | stretch.values() | {"skipped": stretch.keys - 1}
    places = fetch(connection, reach_statement(connection.dialect.name, shape), values)
    return Place(*places[0]) if places else None


def _rows(connection: Connection, question: Question, shape: Shape, stretch: _Stretch, limit: int) -> list[Any]:
    values = question.values | stretch.values() | {"limit": limit}
    return fetch(connection, rows_statement(connection.dialect.name, shape), values)


def _cursor_at(place: Place) -> str:
    return JobCursor(moment_of(max(place.created_at, _FIRST)), place.job_id).encode()
