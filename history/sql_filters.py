"""What a filter asks of SQL: one index that its jobs are read from, and what is checked about each of them.

Statements are built once for each shape of a filter, with its values as parameters: building one costs more than
running it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    Text,
    and_,
    bindparam,
    column,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    type_coerce,
    union_all,
)

from .job import JobStatus
from .job_cursor import JobCursor
from .job_history_store import JobFilter
from .job_search import words_of
from .recordable import is_text
from .schema import Identifier, job_documents, job_labels, jobs
from .sql_labels import TAG
from .sql_rows import microseconds_of, raw_columns

Parameters = dict[str, Any]

_COLUMNS: Final = {
    "failure": "failure_group",
    "group": "group_id",
    "worker": "worker_id",
    "task": "task",
    "queue": "queue",
}
#: The ways to find jobs, those that find the fewest first. The last ones have an index with the status inside.
_WAYS: Final = ("family", "failure", "group", "label", "worker", "task", "queue", "status")
_WITH_STATUS: Final = frozenset({"group", "label", "worker", "task", "queue", "status"})
_LIKE_SIGNS: Final = re.compile(r"[\\%_]")
_ESCAPED: Final = r"\\\g<0>"
_PLACE: Final = ("created_at", "job_id")
_EARLIEST, _LATEST = -(2**63), 2**63 - 1


class Term(NamedTuple):
    """One condition of a filter, without its values: its kind, and which one of its kind, or of how many values."""

    kind: str
    number: int = 0


class Shape(NamedTuple):
    """How jobs are looked for: the index, its ranges of one status each (0: one range of all), and the checks."""

    way: Term
    ranges: int
    checks: tuple[Term, ...]


class Place(NamedTuple):
    """A place in a list's order, raw; the smallest id is "" and belongs to nobody."""

    created_at: int
    job_id: str = ""


class Question(NamedTuple):
    """A filter, ready to be asked: all of its terms, the values, and the places between which its jobs are."""

    terms: tuple[Term, ...]
    values: Parameters
    before: Place
    since: Place

    @property
    def words(self) -> list[str]:
        """The words of a search."""
        return [value for name, value in self.values.items() if name.startswith("word_")]

    @property
    def others(self) -> tuple[Term, ...]:
        """All of the terms but a search's words."""
        return tuple(term for term in self.terms if term.kind != "words")

    @property
    def shapes(self) -> list[Shape]:
        """The ways to look, the one that is likely to find the fewest jobs first."""
        ways = [term for kind in _WAYS for term in self.terms if term.kind == kind]
        return [self._shape(way) for way in ways or [Term("age")]]

    def _shape(self, way: Term) -> Shape:
        covered = {way} | {term for term in self.terms if term.kind == "status" and way.kind in _WITH_STATUS}
        return Shape(way, self._ranges(way), tuple(term for term in self.terms if term not in covered))

    def _ranges(self, way: Term) -> int:
        return len([name for name in self.values if name.startswith("range_")]) if way.kind in _WITH_STATUS else 0


def question_of(wanted: JobFilter, after: JobCursor | None) -> Question | None:
    """Return what to ask after the cursor; ``None`` where no job can fit."""
    question = _question(wanted)
    if question is None or after is None:
        return question
    return question._replace(before=min(question.before, Place(microseconds_of(after.created_at), after.job_id)))


@functools.lru_cache(maxsize=256)
def _question(wanted: JobFilter) -> Question | None:
    terms = _terms(wanted)
    values = {name: value for term in terms.values() for name, value in term.items()}
    if not all(is_text(value) for value in values.values()) or _is_contradiction(wanted):
        return None
    statuses = [status.value for status in wanted.statuses or JobStatus]
    values |= {f"range_{number}": status for number, status in enumerate(dict.fromkeys(statuses))}
    before = Place(_LATEST) if wanted.until is None else Place(microseconds_of(wanted.until))
    since = Place(_EARLIEST) if wanted.since is None else Place(microseconds_of(wanted.since))
    return Question(tuple(terms), values, before, since)


def _terms(wanted: JobFilter) -> dict[Term, Parameters]:
    terms: dict[Term, Parameters] = {}
    statuses = dict.fromkeys(status.value for status in wanted.statuses)
    if 0 < len(statuses) < len(JobStatus) and wanted.failure_group is None:
        terms[Term("status", len(statuses))] = {f"status_{n}": status for n, status in enumerate(statuses)}
    for kind, value in _single_values(wanted):
        if value is not None:
            terms[Term(kind)] = {kind: value}
    labels = [(TAG, tag) for tag in wanted.tags] + list(wanted.metadata)
    for n, (name, value) in enumerate(dict.fromkeys(labels)):
        terms[Term("label", n)] = {f"label_{n}": name, f"label_value_{n}": value}
    if wanted.text is not None:
        words = words_of(wanted.text)
        terms[Term("words", len(words))] = {f"word_{n}": word for n, word in enumerate(words)} | {
            f"like_{n}": f"%{_LIKE_SIGNS.sub(_ESCAPED, word)}%" for n, word in enumerate(words)
        }
    return terms


def _single_values(wanted: JobFilter) -> Iterable[tuple[str, str | None]]:
    yield "family", wanted.root_id
    for kind, name in _COLUMNS.items():
        yield kind, getattr(wanted, name)


def _is_contradiction(wanted: JobFilter) -> bool:
    # A job is in a group of failures exactly while it is FAILED.
    return wanted.failure_group is not None and bool(wanted.statuses) and JobStatus.FAILED not in wanted.statuses


# -- statements


def between(before: Place, since: Place) -> Parameters:
    """Return the parameters of every statement here that say where to look."""
    return {"before_at": before[0], "before_id": before[1], "since_at": since[0], "since_id": since[1]}


@functools.lru_cache(maxsize=512)
def rows_statement(dialect: str, shape: Shape) -> Any:
    """Return the query for the newest ``:limit`` rows of a shape, found among its newest ``:keys`` jobs."""
    ranges = _ranges(shape)
    if dialect == "sqlite" or (len(ranges) == 1 and not shape.checks and _found_in(shape) is jobs):
        return _merged_rows(shape, checks_of(dialect, shape.checks))
    return _rows_of_keys(shape, checks_of(dialect, shape.checks))


def _merged_rows(shape: Shape, checks: list[ColumnElement[bool]]) -> Any:
    rows = select(*_columns(shape)).select_from(_source(shape))
    ranges = [rows.where(*conditions, *checks, _inside(shape)) for conditions in _ranges(shape)]
    if len(ranges) == 1:
        return _limited(_newest_first(ranges[0], _found_in(shape)), "limit")
    # Each range is in the list's order: SQLite merges them without sorting.
    return _limited(union_all(*ranges).order_by(column("created_at").desc(), column("job_id").desc()), "limit")


def _rows_of_keys(shape: Shape, checks: list[ColumnElement[bool]]) -> Any:
    # PostgreSQL merges only what has a limit of its own, and looks the rows up one by one only when it must: else it
    # would rather read the whole table.
    keys = _newest_keys("postgresql", shape, "keys").subquery("keys")
    row = select(*raw_columns()).where(jobs.c.job_id == keys.c.job_id, *checks).correlate(keys)
    looked_up = row.offset(literal_column("0")).lateral("found")
    rows = select(*looked_up.c).select_from(keys.join(looked_up, true()))
    return _limited(_newest_first(rows, keys), "limit")


@functools.lru_cache(maxsize=512)
def reach_statement(dialect: str, shape: Shape) -> Any:
    """Return the query for the place of the newest ``:keys`` jobs' last one, which is ``:skipped`` behind the first."""
    keys = _newest_keys(dialect, shape, "keys")
    return keys.offset(bindparam("skipped", type_=BigInteger)).limit(literal_column("1"))


def _newest_keys(dialect: str, shape: Shape, limit: str) -> Any:
    found = _found_in(shape)
    keys = select(found.c.created_at.label("created_at"), found.c.job_id)
    ranges = [keys.where(*conditions, _inside(shape)) for conditions in _ranges(shape)]
    if len(ranges) == 1:
        return _limited(_newest_first(ranges[0], found), limit)
    if dialect == "postgresql":
        ranges = [select(_limited(_newest_first(each, found), limit).subquery()) for each in ranges]
    return _limited(union_all(*ranges).order_by(column("created_at").desc(), column("job_id").desc()), limit)


def _newest_first(rows: Select[Any], source: FromClause) -> Select[Any]:
    return rows.order_by(source.c.created_at.desc(), source.c.job_id.desc())


def _limited(rows: Any, limit: str) -> Any:
    return rows.limit(bindparam(limit, type_=BigInteger)).offset(literal_column("0"))


def checks_of(dialect: str, terms: Iterable[Term]) -> list[ColumnElement[bool]]:
    """Return the checks of jobs; none of them tempts a database to look for jobs by it."""
    return [_check(dialect, term) for term in terms]


def _columns(shape: Shape) -> list[ColumnElement[Any]]:
    # What the list is ordered by must come from the index, also where the rest comes from the rows.
    found = _found_in(shape)
    return [found.c[each.name].label(each.name) if each.name in _PLACE else each for each in raw_columns()]


def _found_in(shape: Shape) -> FromClause:
    return job_labels if shape.way.kind == "label" else jobs


def _source(shape: Shape) -> FromClause:
    return job_labels.join(jobs, jobs.c.job_id == job_labels.c.job_id) if shape.way.kind == "label" else jobs


def _inside(shape: Shape) -> ColumnElement[bool]:
    found = _found_in(shape)
    place = tuple_(type_coerce(found.c.created_at, BigInteger), found.c.job_id)
    before = tuple_(bindparam("before_at", type_=BigInteger), bindparam("before_id", type_=Identifier))
    since = tuple_(bindparam("since_at", type_=BigInteger), bindparam("since_id", type_=Identifier))
    return and_(place < before, place >= since)


def _ranges(shape: Shape) -> list[list[ColumnElement[bool]]]:
    way = shape.way
    if way.kind == "family":
        return [[jobs.c.root_id == _value("family")], [jobs.c.job_id == _value("family")]]
    if way.kind not in _WITH_STATUS:
        return [_key(way)]
    status = _found_in(shape).c.status
    return [[*_key(way), status == _value(f"range_{number}")] for number in range(shape.ranges)]


def _key(way: Term) -> list[ColumnElement[bool]]:
    if way.kind == "label":
        return _label_key(job_labels, way.number)
    return [jobs.c[_COLUMNS[way.kind]] == _value(way.kind)] if way.kind in _COLUMNS else []


def _label_key(labels: FromClause, number: int) -> list[ColumnElement[bool]]:
    return [labels.c.name == _value(f"label_{number}"), labels.c.value == _value(f"label_value_{number}")]


def _check(dialect: str, term: Term) -> ColumnElement[bool]:
    match term.kind:
        case "family":
            return or_(_plain("root_id") == _value("family"), _plain("job_id") == _value("family"))
        case "status":
            return or_(*(_plain("status") == _value(f"status_{number}") for number in range(term.number)))
        case "label":
            return _has_label(term)
        case "words":
            found = exists().where(job_documents.c.job_id == jobs.c.job_id, *has_words(dialect, term.number))
            return found.correlate(jobs)
        case _:
            return _plain(_COLUMNS[term.kind]) == _value(term.kind)


def _has_label(term: Term) -> ColumnElement[bool]:
    label = job_labels.alias()
    # The whole key: one look at it tells.
    found = exists().where(
        *_label_key(label, term.number),
        label.c.status == jobs.c.status,
        label.c.created_at == jobs.c.created_at,
        label.c.job_id == jobs.c.job_id,
    )
    return found.correlate(jobs)


def _plain(name: str) -> ColumnElement[str]:
    # An expression: no index fits it.
    return jobs.c[name].op("||")(literal_column("''"))


def has_words(dialect: str, count: int) -> list[ColumnElement[bool]]:
    """Return the check of a document's words."""
    document = job_documents.c.document
    words = [_value(f"word_{number}") for number in range(count)]
    if dialect == "sqlite":
        return [func.instr(document, word) > literal_column("0") for word in words]
    return [document.like(bindparam(f"like_{number}", type_=Text), escape="\\") for number in range(count)]


def _value(name: str) -> ColumnElement[str]:
    return bindparam(name, type_=Text)
