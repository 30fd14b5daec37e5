"""What a ledger's database consists of in each version: how one that lost its version is recognised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, column, create_engine, func, inspect, select, table
from sqlalchemy.schema import CreateSchema

from .search_index import OPTIONAL_INDEX

_SCRATCH = "jobledger_scratch"

_SQLITE_OBJECTS = table("sqlite_master", column("type"), column("name"))
_TRIGGERS = table("pg_trigger", column("tgname"), column("tgrelid"), column("tgisinternal"), schema="pg_catalog")
_CLASSES = table("pg_class", column("oid"), column("relnamespace"), schema="pg_catalog")
_NAMESPACES = table("pg_namespace", column("oid"), column("nspname"), schema="pg_catalog")


def objects_in(connection: Connection) -> frozenset[str]:
    """Return every table, column, index and trigger of the database, each as words for people.

    The index that not every PostgreSQL allows is left out.
    """
    schema = connection.scalar(select(func.current_schema())) if _is_postgresql(connection) else None
    return frozenset(_objects(connection, schema))


def objects_of(connection: Connection, config: Config, revision: str) -> frozenset[str]:
    """Return what this kind of database consists of in a revision, by running its migrations aside.

    In PostgreSQL that happens in a schema of its own, inside the caller's transaction, and nothing of it stays.
    """
    if not _is_postgresql(connection):
        engine = create_engine("sqlite://")
        with closing(engine.connect()) as aside:
            return _built(aside, config, revision, None)
    with connection.begin_nested() as scratch:
        connection.execute(CreateSchema(_SCRATCH))
        path = func.concat(_SCRATCH, ", ", func.current_setting("search_path"))
        connection.execute(select(func.set_config("search_path", path, True)))
        try:
            return _built(connection, config, revision, _SCRATCH)
        finally:
            scratch.rollback()


def _built(connection: Connection, config: Config, revision: str, schema: str | None) -> frozenset[str]:
    scripts = list(ScriptDirectory.from_config(config).walk_revisions("base", revision))
    with Operations.context(MigrationContext.configure(connection)):
        for script in reversed(scripts):
            script.module.upgrade()
    return frozenset(_objects(connection, schema))


def _objects(connection: Connection, schema: str | None) -> Iterator[str]:
    inspector = inspect(connection)
    for name in inspector.get_table_names(schema):
        yield f"table {name}"
        yield from (f"column {name}.{each['name']}" for each in inspector.get_columns(name, schema))
        for index in inspector.get_indexes(name, schema):
            if index["name"] == OPTIONAL_INDEX:
                continue
            yield f"index {index['name']} ({', '.join(str(each) for each in index['column_names'])})"
    yield from (f"trigger {name}" for name in _triggers(connection, schema))


def _triggers(connection: Connection, schema: str | None) -> Iterator[str]:
    if not _is_postgresql(connection):
        return connection.scalars(select(_SQLITE_OBJECTS.c.name).where(_SQLITE_OBJECTS.c.type == "trigger")).__iter__()
    tables = _TRIGGERS.join(_CLASSES, _CLASSES.c.oid == _TRIGGERS.c.tgrelid)
    tables = tables.join(_NAMESPACES, _NAMESPACES.c.oid == _CLASSES.c.relnamespace)
    ours = select(_TRIGGERS.c.tgname).select_from(tables).where(~_TRIGGERS.c.tgisinternal)
    return iter(connection.scalars(ours.where(_NAMESPACES.c.nspname == schema)))


def _is_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"
