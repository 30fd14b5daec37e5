"""Many rows at once, by what each driver is best at; the statements are SQLAlchemy's, compiled once.

SQLAlchemy's own care for each parameter costs more than the writing of a row. So the rows here are tuples of raw
values (whole microseconds, JSON text), and go straight to the driver: by ``executemany`` on SQLite; on PostgreSQL by
``COPY``, or as one JSON parameter where rows can meet others. A driver's errors leave as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from sqlalchemy import (
    Connection,
    Delete,
    Executable,
    Table,
    Text,
    Update,
    bindparam,
    cast,
    column,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from .sql_statements import insert_into

_ROWS: Final = "rows"
_KEY: Final = "key_of_row"
_Rows = Sequence[tuple[Any, ...]]
_Columns = tuple[str, ...]


def fetch(connection: Connection, statement: Executable, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return the raw rows of a query; the statement must be one that lives on, for its text is kept."""
    text, names = _compiled(connection.dialect.name, statement)
    with _cursor(connection) as cursor:
        cursor.execute(text, tuple(parameters[name] for name in names))
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def append_rows(connection: Connection, table: Table, columns: _Columns, rows: _Rows) -> None:
    """Insert rows that must not be there yet."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        merge_rows(connection, inserting("sqlite", table, columns), columns, rows)
        return
    with _cursor(connection) as cursor, cursor.copy(_copying(table, columns)) as copy:
        for row in rows:
            copy.write_row(row)


def merge_rows(connection: Connection, statement: Executable, columns: _Columns, rows: _Rows) -> None:
    """Run a statement made of ``inserting``, ``updating`` or ``deleting`` for each row."""
    if not rows:
        return
    text, _ = _compiled(connection.dialect.name, statement)
    with _cursor(connection) as cursor:
        if connection.dialect.name == "sqlite":
            cursor.executemany(text, rows)
        else:
            cursor.execute(text, (_as_json(columns, rows),))


@functools.cache
def inserting(dialect: str, table: Table, columns: _Columns) -> sqlite.Insert | postgresql.Insert:
    """Return an insert of rows of the columns; say on it what happens to those that are there already."""
    statement = insert_into(dialect, table)
    if dialect == "sqlite":
        return statement.values({name: bindparam(name) for name in columns})
    return statement.from_select(list(columns), select(*_recordset(table, columns).c))


@functools.lru_cache(maxsize=256)
def updating(dialect: str, table: Table, columns: _Columns) -> Update:
    """Return an update of the rows of a table by its key, which is the last of the columns."""
    *changed, key = columns
    if dialect == "sqlite":
        by_key = update(table).where(table.c[key] == bindparam(_KEY))
        return by_key.values({name: bindparam(name) for name in changed})
    new = _recordset(table, columns)
    return update(table).where(table.c[key] == new.c[key]).values({name: new.c[name] for name in changed})


@functools.cache
def deleting(dialect: str, table: Table, columns: _Columns) -> Delete:
    """Return a removal of the rows that have these values in all of the columns."""
    if dialect == "sqlite":
        return delete(table).where(*(table.c[name] == bindparam(name) for name in columns))
    gone = _recordset(table, columns)
    return delete(table).where(*(table.c[name] == gone.c[name] for name in columns))


def _recordset(table: Table, columns: _Columns) -> Any:
    rows = cast(bindparam(_ROWS, type_=Text), postgresql.JSON)
    listed = [column(name, table.c[name].type) for name in columns]
    return func.json_to_recordset(rows).table_valued(*listed, name="new").render_derived("new", with_types=True)


def _as_json(columns: _Columns, rows: _Rows) -> str:
    return msgspec.json.encode([dict(zip(columns, row, strict=True)) for row in rows]).decode()


@functools.cache
def _copying(table: Table, columns: _Columns) -> str:
    quote = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]
    return f"COPY {quote(table.name)} ({', '.join(quote(name) for name in columns)}) FROM STDIN"


@functools.lru_cache(maxsize=512)
def _compiled(dialect: str, statement: Executable) -> tuple[str, _Columns]:
    compiled = statement.compile(dialect=_positional(dialect))  # type: ignore[attr-defined]
    return str(compiled), tuple(compiled.positiontup or ())


def _positional(dialect: str) -> Dialect:
    if dialect == "sqlite":
        return sqlite.dialect()
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

    return PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]


@contextmanager
def _cursor(connection: Connection) -> Iterator[Any]:
    cursor = connection.connection.cursor()
    try:
        yield cursor
    finally:
        cursor.close()
