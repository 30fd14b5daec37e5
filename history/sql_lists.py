"""The lists of jobs: newest first, ties by id, each page found by an index."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, literal, select, true, tuple_, union_all

from .job import JobHistoryEntry, JobStatus
from .job_cursor import JobCursor, cursor_of
from .job_history_store import JobFilter, JobPage
from .job_row import entry_of
from .recordable import is_text
from .schema import Identifier, UtcMicroseconds, jobs

#: How many jobs a page looks at when no index covers its filter.
SCAN_LIMIT = 5_000

_NEWEST_FIRST = (jobs.c.created_at.desc(), jobs.c.job_id.desc())
_LARGEST_OFFSET = 2**62
_Unindexed = dict[str, list[Any]]


def list_entries(connection: Connection, status: JobStatus | None, limit: int, offset: int) -> list[JobHistoryEntry]:
    """Return entries by their number in the list; ``limit`` is taken as it is."""
    query = select(jobs).order_by(*_NEWEST_FIRST).limit(limit).offset(max(0, min(offset, _LARGEST_OFFSET)))
    return _entries(connection, query if status is None else query.where(jobs.c.status == status.value))


def page_of(connection: Connection, job_filter: JobFilter, after: JobCursor | None, limit: int) -> JobPage:
    """Return the page after the cursor; ``limit`` is at least 1."""
    if not all(is_text(name) for name in (job_filter.task, job_filter.queue) if name is not None):
        return JobPage(entries=())
    ranges, unindexed = _split(job_filter)
    ranges = [and_(condition, _behind(after)) for condition in ranges]
    if not unindexed:
        return _page(_entries(connection, _merged(ranges, limit + 1)), limit)
    page = _page(_entries(connection, _scanned(ranges[0], unindexed, limit + 1)), limit)
    return page if page.next_cursor else _page_to_end_of_scan(connection, page, ranges[0])


def _split(job_filter: JobFilter) -> tuple[list[ColumnElement[bool]], _Unindexed]:
    statuses = [status.value for status in dict.fromkeys(job_filter.statuses)]
    wanted = {"task": [job_filter.task], "queue": [job_filter.queue]}
    names = {name: values for name, values in wanted.items() if values != [None]}
    if not names:
        return [jobs.c.status == status for status in statuses] or [true()], {}
    indexed, *others = names
    unindexed = {name: names[name] for name in others} | ({"status": statuses} if statuses else {})
    return [jobs.c[indexed] == names[indexed][0]], unindexed


def _behind(after: JobCursor | None) -> ColumnElement[bool]:
    if after is None:
        return true()
    place = tuple_(literal(after.created_at, UtcMicroseconds()), literal(after.job_id, Identifier))
    return tuple_(jobs.c.created_at, jobs.c.job_id) < place


def _merged(ranges: list[ColumnElement[bool]], limit: int) -> Select[Any]:
    if len(ranges) == 1:
        return _newest(ranges[0]).limit(limit)
    # One short range of the index for each status: an IN would read and sort all of their jobs.
    heads = (select(_newest(condition).limit(limit).subquery()) for condition in ranges)
    merged = union_all(*heads).subquery()
    return select(merged).order_by(merged.c.created_at.desc(), merged.c.job_id.desc()).limit(limit)


def _newest(condition: ColumnElement[bool]) -> Select[Any]:
    return select(jobs).where(condition).order_by(*_NEWEST_FIRST)


def _scanned(indexed: ColumnElement[bool], unindexed: _Unindexed, limit: int) -> Select[Any]:
    looked_at = _newest(indexed).limit(SCAN_LIMIT).subquery()
    matches = [looked_at.c[name].in_(values) for name, values in unindexed.items()]
    newest_first = (looked_at.c.created_at.desc(), looked_at.c.job_id.desc())
    return select(looked_at).where(*matches).order_by(*newest_first).limit(limit)


def _page_to_end_of_scan(connection: Connection, page: JobPage, indexed: ColumnElement[bool]) -> JobPage:
    place = select(jobs.c.created_at, jobs.c.job_id).where(indexed).order_by(*_NEWEST_FIRST)
    last = connection.execute(place.offset(SCAN_LIMIT - 1).limit(1)).one_or_none()
    return JobPage(entries=page.entries, next_cursor=cursor_of(last.created_at, last.job_id) if last else None)


def _entries(connection: Connection, query: Select[Any]) -> list[JobHistoryEntry]:
    return [entry_of(row) for row in connection.execute(query).mappings()]


def _page(entries: list[JobHistoryEntry], limit: int) -> JobPage:
    shown = tuple(entries[:limit])
    more = len(entries) > limit
    return JobPage(entries=shown, next_cursor=cursor_of(shown[-1].created_at, shown[-1].job_id) if more else None)
