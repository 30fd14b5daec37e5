"""The documents that searches look at, in SQL: written after the recording, from what the jobs' rows say then.

Recording only notes whose text has changed, in an append-only table and in its own transaction. Whoever has a quiet
moment takes the oldest notes, reads the rows *after* that, and writes the documents, all in one transaction: what
changes meanwhile leaves another note, so nothing is ever missed.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    Select,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    text,
    type_coerce,
)

from .job import JobHistoryEntry
from .job_search import document_of, is_searched_anew
from .schema import job_documents, jobs, search_pending
from .sql_bulk import append_rows, fetch, inserting, merge_rows
from .sql_rows import entries_of, microseconds_of, raw_columns
from .sql_statements import delete_listed, select_listed

# Two that write documents at once could each keep the other's older text, so one does it at a time.
_POSTGRESQL_LOCK: Final = 5_270_163_842_007_992

# SQLite's index gives documents in the order of their numbers, so the jobs of each eighth of a second share a range of
# them. Numbers that lie close together make the index small.
_TIME_BITS: Final = 17
_SLOT_BITS: Final = 16
NUMBERS_OF_A_TIME: Final = 1 << _SLOT_BITS

# FTS5 has a syntax of its own for what an index without a text of its own needs to forget.
_FORGET: Final = text("INSERT INTO job_search (job_search, rowid, document) VALUES ('delete', :number, :document)")
_LEARN: Final = text("INSERT INTO job_search (rowid, document) VALUES (:number, :document)")


def first_number(microseconds: int) -> int:
    """Return the smallest number of SQLite's documents of jobs that were submitted then."""
    return microseconds >> _TIME_BITS << _SLOT_BITS


def first_microsecond(number: int) -> int:
    """Return when the time began whose jobs' documents may have this number."""
    return number >> _SLOT_BITS << _TIME_BITS


class _Document(NamedTuple):
    """A row of the table, in the order of its columns; without a number until it has one."""

    number: int | None
    job_id: str
    created_at: int
    document: str


def note_for_search(
    connection: Connection, known: Mapping[str, JobHistoryEntry], entries: Iterable[JobHistoryEntry]
) -> None:
    """Note the jobs whose text or place is not what it was in ``known``."""
    changed = [(entry.job_id,) for entry in entries if is_searched_anew(known.get(entry.job_id), entry)]
    append_rows(connection, search_pending, ("job_id",), changed)


def index_documents(connection: Connection, limit: int) -> int:
    """Write the documents of at most so many notes, the oldest; return how many notes that were."""
    if not _is_alone(connection):
        return 0
    job_ids = list(connection.scalars(_TAKE, {"taken": limit}))
    if job_ids:
        _write(connection, set(job_ids))
    return len(job_ids)


def remove_documents(connection: Connection, entries: Iterable[JobHistoryEntry]) -> None:
    """Remove the documents of jobs that retention removes, in its transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_POSTGRESQL_LOCK)))
    _remove(connection, _written(connection, {entry.job_id for entry in entries}))


def _is_alone(connection: Connection) -> bool:
    if connection.dialect.name == "sqlite":
        return True
    return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(_POSTGRESQL_LOCK))))


def _taking() -> Any:
    oldest = select(search_pending.c.number).order_by(search_pending.c.number).limit(bindparam("taken"))
    return delete(search_pending).where(search_pending.c.number.in_(oldest)).returning(search_pending.c.job_id)


_TAKE: Final = _taking()


def _write(connection: Connection, job_ids: Collection[str]) -> None:
    query, parameters = select_listed(connection, jobs, "job_id", job_ids)
    entries = entries_of(fetch(connection, _raw(query), parameters))
    wanted = [_Document(None, entry.job_id, microseconds_of(entry.created_at), document_of(entry)) for entry in entries]
    written = {document.job_id: document for document in _written(connection, job_ids)}
    changed = [document for document in wanted if not _is_written(document, written.get(document.job_id))]
    if connection.dialect.name == "sqlite":
        _remove(connection, [written[document.job_id] for document in changed if document.job_id in written])
        _add_numbered(connection, changed)
    else:
        merge_rows(connection, _upserting(), _UPSERTED, [document[1:] for document in changed])


@functools.lru_cache(maxsize=4)
def _raw(query: Select[Any]) -> Select[Any]:
    return query.with_only_columns(*raw_columns())


_UPSERTED: Final = ("job_id", "created_at", "document")


@functools.cache
def _upserting() -> Any:
    statement = inserting("postgresql", job_documents, _UPSERTED)
    new = statement.excluded
    changed = {"created_at": new.created_at, "document": new.document}
    return statement.on_conflict_do_update(index_elements=[job_documents.c.job_id], set_=changed)


def _is_written(document: _Document, written: _Document | None) -> bool:
    return written is not None and written._replace(number=None) == document


def _written(connection: Connection, job_ids: Collection[str]) -> list[_Document]:
    query, parameters = select_listed(connection, job_documents, "job_id", job_ids)
    return [_Document(*row) for row in fetch(connection, _raw_documents(query), parameters)]


@functools.lru_cache(maxsize=4)
def _raw_documents(query: Select[Any]) -> Select[Any]:
    documents = job_documents.c
    created_at = type_coerce(documents.created_at, BigInteger)
    return query.with_only_columns(documents.number, documents.job_id, created_at, documents.document)


def _remove(connection: Connection, documents: Sequence[_Document]) -> None:
    if not documents:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(_FORGET, [_indexed(document) for document in documents])
    delete_listed(connection, job_documents, "job_id", [document.job_id for document in documents])


def _add_numbered(connection: Connection, documents: Iterable[_Document]) -> None:
    numbers = _Numbers(connection)
    numbered = [document._replace(number=numbers.next_of(document)) for document in documents]
    if numbered:
        append_rows(connection, job_documents, _Document._fields, numbered)
        connection.execute(_LEARN, [_indexed(document) for document in numbered])


def _indexed(document: _Document) -> dict[str, Any]:
    return {"number": document.number, "document": document.document}


class _Numbers:
    """Gives each document of a short time the next free number of that time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._next: dict[int, int] = {}

    def next_of(self, document: _Document) -> int:
        return self._next_from(first_number(document.created_at))

    def _next_from(self, first: int) -> int:
        if first not in self._next:
            self._next[first] = self._first_free(first)
        number = self._next[first]
        if number >= first + NUMBERS_OF_A_TIME:
            return self._next_from(first + NUMBERS_OF_A_TIME)
        self._next[first] += 1
        return number

    def _first_free(self, first: int) -> int:
        last = self._connection.scalar(_LAST_NUMBER, {"first": first, "beyond": first + NUMBERS_OF_A_TIME})
        return first if last is None else last + 1


_LAST_NUMBER: Final = (
    select(job_documents.c.number)
    .where(job_documents.c.number >= bindparam("first"), job_documents.c.number < bindparam("beyond"))
    .order_by(job_documents.c.number.desc())
    .limit(literal_column("1"))
)
