"""Searches in SQL: pages of the jobs in whose documents all of the words occur, newest first.

Whatever the words, a page looks at a bounded number of documents. The index leads to those that may fit; where too
many may, the page is partial and says where to go on.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    FromClause,
    Text,
    bindparam,
    column,
    func,
    literal_column,
    select,
    table,
    true,
    tuple_,
    type_coerce,
)

from .job_search import SHORTEST_WORD
from .schema import job_documents, jobs
from .search_index import has_word_index
from .sql_bulk import fetch
from .sql_documents import NUMBERS_OF_A_TIME, first_microsecond, first_number
from .sql_filters import Parameters, Place, Question, Term, between, checks_of, has_words
from .sql_rows import raw_columns

#: How many documents a page looks at, at most, in how many steps: most searches end with a short one.
STEPS: Final = (500, 10_000)
#: How many runs of three characters are looked up in each step, to find one that few documents have.
_TRIED: Final = (1, 8)
#: How many documents PostgreSQL's index may find, all of which are then sorted.
MOST: Final = 10_000
#: Milliseconds that PostgreSQL's index may take for one page.
_PATIENCE: Final = 250
_QUERY_CANCELED: Final = "57014"

_SEARCH: Final = table("job_search", column("job_search"), column("rowid", BigInteger))


class Found(NamedTuple):
    """Raw rows, newest first, and where the search stopped; ``None`` when it saw everything."""

    rows: list[Any]
    stopped_at: Place | None


def search(connection: Connection, question: Question, limit: int) -> Found:
    """Return at least ``limit`` rows, or all that there are, or those of a bounded search."""
    searcher = _SqliteSearch if connection.dialect.name == "sqlite" else _PostgresqlSearch
    return searcher(connection, question, limit).found()


class _SqliteSearch:
    def __init__(self, connection: Connection, question: Question, limit: int) -> None:
        self._connection = connection
        self._question = question
        self._limit = limit
        words = sorted(question.words, key=len, reverse=True)
        self._trigrams = list(dict.fromkeys(run for word in words for run in _runs(word)))
        self._rows: list[Any] = []

    def found(self) -> Found:
        before = self._question.before
        last = first_number(self._question.since.created_at)
        top = first_number(before.created_at) + NUMBERS_OF_A_TIME - 1
        for step, tried in zip(STEPS, _TRIED, strict=True):
            reach = self._reach(top, last, step, tried)
            bottom = last if reach is None else reach // NUMBERS_OF_A_TIME * NUMBERS_OF_A_TIME
            self._look(top, bottom)
            if reach is None:
                return Found(self._rows, None)
            top = bottom - 1
            if len(self._rows) >= self._limit:
                break
        return Found(self._rows, Place(first_microsecond(top + 1)))

    def _reach(self, top: int, last: int, step: int, tried: int) -> int | None:
        """The number to which the rarest run is looked at; ``None`` where even that is not too far."""
        lowest = top
        for run in _spread(self._trigrams, tried):
            values = {"match": _quoted(run), "top": top, "bottom": last, "skipped": step - 1}
            reach = self._connection.scalar(_REACH, values)
            if reach is None:
                return None
            lowest = min(lowest, reach)
        return lowest

    def _look(self, top: int, bottom: int) -> None:
        question = self._question
        statement = _matching(question.others, len(question.words))
        match = " AND ".join(map(_quoted, self._trigrams))
        values = question.values | {"match": match, "top": top, "bottom": bottom}
        values |= between(question.before, question.since)
        with self._connection.execute(statement, values) as result:
            self._rows += _whole_times(result, self._limit - len(self._rows))


def _whole_times(rows: Iterable[Any], limit: int) -> list[Any]:
    """At least ``limit`` rows, and those of the last one's short time, in a list's order."""
    numbered = iter(rows)
    taken = list(islice(numbered, limit))
    if taken:
        last = taken[-1].number // NUMBERS_OF_A_TIME
        for row in numbered:
            if row.number // NUMBERS_OF_A_TIME < last:
                break
            taken.append(row)
    return sorted(taken, key=lambda row: (row.created_at, row.job_id), reverse=True)


def _runs(word: str) -> Iterator[str]:
    return (word[start : start + SHORTEST_WORD] for start in range(len(word) - SHORTEST_WORD + 1))


def _spread(runs: list[str], count: int) -> list[str]:
    return runs[:: -(-len(runs) // count)]


def _quoted(run: str) -> str:
    return '"' + run.replace('"', '""') + '"'


_MATCH: Final = _SEARCH.c.job_search.op("MATCH")(bindparam("match"))
_BETWEEN: Final = (
    _SEARCH.c.rowid <= bindparam("top", type_=BigInteger),
    _SEARCH.c.rowid >= bindparam("bottom", type_=BigInteger),
)
_REACH: Final = (
    select(_SEARCH.c.rowid)
    .where(_MATCH, *_BETWEEN)
    .order_by(_SEARCH.c.rowid.desc())
    .limit(literal_column("1"))
    .offset(bindparam("skipped"))
)


@functools.lru_cache(maxsize=256)
def _matching(others: tuple[Term, ...], words: int) -> Any:
    found = _SEARCH.join(job_documents, job_documents.c.number == _SEARCH.c.rowid)
    found = found.join(jobs, jobs.c.job_id == job_documents.c.job_id)
    return (
        select(*raw_columns(), job_documents.c.number)
        .select_from(found)
        .where(_MATCH, *_BETWEEN, *has_words("sqlite", words), _inside(), *checks_of("sqlite", others))
        .order_by(_SEARCH.c.rowid.desc())
    )


def _inside() -> Any:
    place = tuple_(type_coerce(job_documents.c.created_at, BigInteger), job_documents.c.job_id)
    before = tuple_(bindparam("before_at", type_=BigInteger), bindparam("before_id"))
    since = tuple_(bindparam("since_at", type_=BigInteger), bindparam("since_id"))
    return (place < before) & (place >= since)


class _PostgresqlSearch:
    def __init__(self, connection: Connection, question: Question, limit: int) -> None:
        self._connection = connection
        self._question = question
        self._limit = limit
        self._rows: list[Any] = []
        self._before = question.before

    def found(self) -> Found:
        few, many = STEPS
        if self._is_full_by_age(few):
            return Found(self._rows, None)
        if self._is_indexed() and self._is_full_by_words():
            return Found(self._rows, None)
        return Found(self._rows, None if self._is_full_by_age(many) else self._before)

    def _is_full_by_age(self, count: int) -> bool:
        """Look at the next so many documents; whether the page is full, or no document is left."""
        values = self._values() | {"skipped": count - 1}
        reach = fetch(self._connection, _AGE_REACH, values)
        since = Place(*reach[0]) if reach else self._question.since
        question = self._question
        statement = _by_age(question.others, len(question.words))
        self._rows += fetch(self._connection, statement, self._values() | between(self._before, since))
        self._before = since
        return not reach or len(self._rows) >= self._limit

    def _is_indexed(self) -> bool:
        has_run = any(run.isalnum() for word in self._question.words for run in _runs(word))
        return has_run and has_word_index(self._connection)

    def _is_full_by_words(self) -> bool:
        """Look at all that the index finds, if it is not too much."""
        found = self._ids_with_words()
        if found is None:
            return False
        values = self._values() | {"found": found}
        self._rows += fetch(self._connection, _found_rows(self._question.others), values)
        return True

    def _ids_with_words(self) -> list[str] | None:
        statement = _keys_with_words(len(self._question.words))
        try:
            # Rolled back for the patience to end with it.
            with self._connection.begin_nested() as savepoint:
                self._connection.execute(select(func.set_config("statement_timeout", f"{_PATIENCE}ms", True)))
                keys = fetch(self._connection, statement, self._values() | {"most": MOST + 1})
                savepoint.rollback()
        except Exception as error:
            if getattr(error, "sqlstate", None) != _QUERY_CANCELED:
                raise
            return None
        return [job_id for _, job_id in sorted(keys, reverse=True)] if len(keys) <= MOST else None

    def _values(self) -> Parameters:
        question = self._question
        rest = {"limit": self._limit - len(self._rows)}
        return question.values | between(self._before, question.since) | rest


_AGE_REACH: Final = (
    select(type_coerce(job_documents.c.created_at, BigInteger), job_documents.c.job_id)
    .where(_inside())
    .order_by(job_documents.c.created_at.desc(), job_documents.c.job_id.desc())
    .offset(bindparam("skipped"))
    .limit(literal_column("1"))
)


@functools.lru_cache(maxsize=256)
def _by_age(others: tuple[Term, ...], words: int) -> Any:
    documents = job_documents.c
    keys = select(documents.job_id, documents.created_at).where(_inside(), *has_words("postgresql", words))
    keys = keys.order_by(documents.created_at.desc(), documents.job_id.desc()).offset(literal_column("0"))
    found = keys.subquery("found")
    return _looked_up(found, others).order_by(found.c.created_at.desc(), found.c.job_id.desc())


@functools.lru_cache(maxsize=64)
def _keys_with_words(words: int) -> Any:
    # Apart, and in no order: a limit or an order would tempt the planner to go through the documents without the index.
    keys = select(type_coerce(job_documents.c.created_at, BigInteger).label("created_at"), job_documents.c.job_id)
    hits = keys.where(_inside(), *has_words("postgresql", words)).cte("hits").prefix_with("MATERIALIZED")
    return select(hits.c.created_at, hits.c.job_id).limit(bindparam("most")).offset(literal_column("0"))


@functools.lru_cache(maxsize=256)
def _found_rows(others: tuple[Term, ...]) -> Any:
    ids = func.unnest(bindparam("found", type_=ARRAY(Text)))
    found = ids.table_valued("job_id", with_ordinality="place", name="found").render_derived()
    return _looked_up(found, others).order_by(found.c.place)


def _looked_up(found: FromClause, others: tuple[Term, ...]) -> Any:
    # One by one and only as many as are needed: else the planner would rather read the whole table.
    row = select(*raw_columns()).where(jobs.c.job_id == found.c.job_id, *checks_of("postgresql", others))
    looked_up = row.correlate(found).offset(literal_column("0")).lateral("looked_up")
    rows = select(*looked_up.c).select_from(found.join(looked_up, true()))
    return rows.limit(bindparam("limit")).offset(literal_column("0"))
