"""Which version of the schema a ledger has, and the way to the newest one."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select, text

from ..errors import HistoryUnavailable
from .schema import METADATA
from .sql_database import SqlDatabase

if TYPE_CHECKING:
    from alembic.config import Config

#: The revisions of ``migrations.versions``, oldest first.
REVISIONS = ("0001", "0002")
VERSION_TABLE = "jobledger_version"

# Alembic's own table, under our name; kept apart, so that migrations and schema stay comparable.
_VERSION = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))

# Any number will do, as long as nobody else in the same PostgreSQL database locks it.
_POSTGRESQL_LOCK = 5_270_163_842_007_991


class SchemaState(StrEnum):
    """How a database's schema fits this version of Jobledger."""

    #: There is no ledger yet.
    EMPTY = "empty"
    #: It fits.
    CURRENT = "current"
    #: ``jobledger db upgrade`` makes it fit.
    OLDER = "older"
    #: A newer Jobledger wrote it, and this one does not know how.
    NEWER = "newer"
    #: It has tables of these names, but no version.
    UNSTAMPED = "unstamped"


def open_schema(database: SqlDatabase, revisions: Sequence[str] = REVISIONS) -> None:
    """Make sure that the schema is the newest one: create it in an empty database, else refuse what does not fit.

    Raises:
        HistoryUnavailable: naming what to do about an older, newer or unknown schema.
    """
    state = _state_of(database, revisions)
    if state is SchemaState.EMPTY:
        state = _create(database)
    _refuse_unless_current(database, state)


def check(url: str) -> SchemaState:
    """Return how the database's schema fits, without changing or creating anything."""
    database = SqlDatabase(url)
    try:
        return _state_of(database)
    finally:
        database.close()


def upgrade(url: str) -> SchemaState:
    """Bring the database to the newest schema, in one transaction; return the state it was in before.

    Raises:
        HistoryUnavailable: for a newer or unknown schema, which is left alone.
    """
    database = SqlDatabase(url)
    try:
        return _upgrade(database)
    finally:
        database.close()


def stamp(url: str, revision: str = REVISIONS[-1]) -> None:
    """Declare which schema the database has, for tables that were restored without their version.

    Raises:
        HistoryUnavailable: for an unknown revision, and where there is no ledger.
    """
    if revision not in REVISIONS:
        raise HistoryUnavailable(f"There is no schema version {revision!r}; known ones: {', '.join(REVISIONS)}.")
    database = SqlDatabase(url)
    try:
        _restamp(database, revision)
    finally:
        database.close()


def _restamp(database: SqlDatabase, revision: str) -> None:
    if _state_of(database) is SchemaState.EMPTY:
        raise HistoryUnavailable(f"There is no ledger at {database.shown} to stamp; `jobledger db upgrade` makes one.")
    with database.writing() as connection:
        _lock(connection)
        _stamp(connection, revision)


def _state_of(database: SqlDatabase, revisions: Sequence[str] = REVISIONS) -> SchemaState:
    if database.file is not None and not database.file.exists():
        return SchemaState.EMPTY
    with database.reading() as connection:
        return _state(connection, revisions)


def _state(connection: Connection, revisions: Sequence[str] = REVISIONS) -> SchemaState:
    found = set(inspect(connection).get_table_names())
    version = connection.scalar(select(_VERSION.c.version_num)) if VERSION_TABLE in found else None
    if version is None:
        return SchemaState.UNSTAMPED if found & set(METADATA.tables) else SchemaState.EMPTY
    if version == revisions[-1]:
        return SchemaState.CURRENT
    return SchemaState.OLDER if version in revisions else SchemaState.NEWER


def _create(database: SqlDatabase) -> SchemaState:
    database.make_file()
    with database.writing() as connection:
        _lock(connection)
        state = _state(connection)
        if state is not SchemaState.EMPTY:
            return state
        METADATA.create_all(connection, checkfirst=False)
        _stamp(connection, REVISIONS[-1])
    return SchemaState.CURRENT


def _refuse_unless_current(database: SqlDatabase, state: SchemaState) -> None:
    match state:
        case SchemaState.OLDER:
            raise HistoryUnavailable(
                f"The ledger {database.shown} has an older schema; stop what writes to it and run "
                "`jobledger db upgrade`."
            )
        case SchemaState.NEWER:
            raise HistoryUnavailable(
                f"The ledger {database.shown} was written by a newer Jobledger; install that version here too."
            )
        case SchemaState.UNSTAMPED:
            raise HistoryUnavailable(
                f"The database {database.shown} has tables named like a ledger's, but no schema version: give "
                "the ledger a database of its own, or run `jobledger db stamp` if these tables are a restored one."
            )
        case SchemaState.EMPTY | SchemaState.CURRENT:
            return


def _upgrade(database: SqlDatabase) -> SchemaState:
    state = _state_of(database)
    if state is SchemaState.EMPTY:
        database.make_file()
    with database.writing() as connection:
        _lock(connection)
        state = _state(connection)
        if state in {SchemaState.EMPTY, SchemaState.OLDER}:
            _migrate(connection)
    if state is not SchemaState.OLDER:
        _refuse_unless_current(database, state)
    return state


def _migrate(connection: Connection) -> None:
    from alembic import command

    command.upgrade(alembic_config(connection), "head")


def alembic_config(connection: Connection | None = None) -> Config:
    """Return what Alembic needs to know; its migrations run inside the connection's own transaction."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes.update(connection=connection, metadata=METADATA, version_table=VERSION_TABLE)
    return config


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRESQL_LOCK})


def _stamp(connection: Connection, revision: str) -> None:
    _VERSION.create(connection, checkfirst=True)
    connection.execute(_VERSION.delete())
    connection.execute(insert(_VERSION), {"version_num": revision})
