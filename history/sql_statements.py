"""The places where SQLite and PostgreSQL say the same thing in different words.

Building a statement costs more than running it; those that every batch needs are therefore built once a dialect.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Delete,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    delete,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

_LISTED = "listed"


def select_listed(connection: Connection, table: Table, key: str, values: Iterable[str]) -> tuple[Select[Any], Any]:
    """Return the query for the rows whose key is one of the values, in its order, and the query's parameters.

    Any number of values is one parameter.
    """
    dialect = connection.dialect.name
    return _listed(dialect, table, key), _listed_parameters(dialect, values)


def _listed_parameters(dialect: str, values: Iterable[str]) -> dict[str, Any]:
    ordered = sorted(values)
    return {_LISTED: ordered if dialect == "postgresql" else msgspec.json.encode(ordered).decode()}


@functools.cache
def _listed(dialect: str, table: Table, key: str) -> Select[Any]:
    return select(table).where(_among(dialect, table.c[key])).order_by(table.c[key])


def delete_listed(connection: Connection, table: Table, key: str, values: Iterable[str]) -> None:
    """Delete the rows whose key is one of the values; any number of values is one parameter."""
    dialect = connection.dialect.name
    connection.execute(_deleting(dialect, table, key), _listed_parameters(dialect, values))


@functools.cache
def _deleting(dialect: str, table: Table, key: str) -> Delete:
    return delete(table).where(_among(dialect, table.c[key]))


def _among(dialect: str, column: ColumnElement[str]) -> ColumnElement[bool]:
    if dialect == "postgresql":
        return column == any_(bindparam(_LISTED, type_=ARRAY(Text)))
    listed = func.json_each(bindparam(_LISTED, type_=Text)).table_valued("value")
    return column.in_(select(listed.c.value))


def insert_into(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert that can say what happens when the row is there already."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


@functools.cache
def insert_unless_there(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert that leaves a row alone that is there already."""
    return insert_into(dialect, table).on_conflict_do_nothing()


@functools.cache
def upsert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert that replaces the whole row if it is there already."""
    statement = insert_into(dialect, table)
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=new_values(statement, table))


def new_values(statement: sqlite.Insert | postgresql.Insert, table: Table) -> dict[str, Any]:
    """Return what an insert would have written, for all but the key."""
    excluded = statement.excluded
    return {column.name: excluded[column.name] for column in table.c if not column.primary_key}
