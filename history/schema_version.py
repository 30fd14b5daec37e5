"""Which version of the schema a ledger has, and the way to the newest one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Column, Connection, MetaData, String, Table, func, insert, inspect, select
from sqlalchemy.exc import DBAPIError

from ..errors import HistoryUnavailable
from .redaction import hide_password
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
_POSTGRESQL_LOCK: Final = 5_270_163_842_007_991
#: Seconds that an upgrade waits for another one, which may have millions of rows to go through.
_PATIENCE: Final = 600.0
#: How PostgreSQL and SQLite say that somebody else keeps a lock.
_LOCK_TROUBLE: Final = {"55P03", "SQLITE_BUSY"}


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


@dataclass(frozen=True)
class SchemaVersion:
    """The schema that a database has."""

    state: SchemaState
    #: Its own word for it; ``None`` where there is no ledger, or one without a version.
    revision: str | None = None


@dataclass(frozen=True)
class Upgrade:
    """What an upgrade found, and the revisions that it applied, oldest first."""

    before: SchemaVersion
    applied: tuple[str, ...]


def open_schema(database: SqlDatabase, revisions: Sequence[str] = REVISIONS) -> None:
    """Make sure that the schema is the newest one: create it in an empty database, else refuse what does not fit.

    Raises:
        HistoryUnavailable: naming what to do about an older, newer or unknown schema.
    """
    version = version_of(database, revisions)
    if version.state is SchemaState.EMPTY:
        version = _create(database)
    refuse_unless_current(database, version)


def check(url: str) -> SchemaVersion:
    """Return which schema the database has, without changing or creating anything."""
    with opened(url) as database:
        return version_of(database)


def upgrade(url: str) -> Upgrade:
    """Bring the database to the newest schema, in one transaction; an upgrade that runs already is waited for.

    Raises:
        HistoryUnavailable: for a newer or unknown schema, and where something else uses the tables; nothing has
            changed then.
    """
    # SQLite waits for its one lock; PostgreSQL waits in ``_wait_for_lock``, and nowhere else as long.
    patience = {"busy_timeout": _PATIENCE} if url.startswith("sqlite") else {}
    with opened(url, **patience) as database, _told_when_in_use(database):
        return _upgrade(database)


def upgrade_advice(url: str) -> str:
    """Return what to do about an older schema at this address, without a password that it may hold."""
    with opened(url) as database:
        return _advice(database)


@contextmanager
def opened(url: str, **options: float) -> Iterator[SqlDatabase]:
    """Give the database at this address, and close it."""
    database = SqlDatabase(url, **options)
    try:
        yield database
    finally:
        database.close()


def version_of(database: SqlDatabase, revisions: Sequence[str] = REVISIONS) -> SchemaVersion:
    """Return which schema the database has; a file that does not exist has none."""
    if database.file is not None and not database.file.exists():
        return SchemaVersion(SchemaState.EMPTY)
    with database.reading() as connection:
        return version_in(connection, revisions)


def version_in(connection: Connection, revisions: Sequence[str] = REVISIONS) -> SchemaVersion:
    """Return which schema this transaction sees."""
    found = set(inspect(connection).get_table_names())
    revision = connection.scalar(select(_VERSION.c.version_num)) if VERSION_TABLE in found else None
    if revision is None:
        return SchemaVersion(SchemaState.UNSTAMPED if found & set(METADATA.tables) else SchemaState.EMPTY)
    if revision == revisions[-1]:
        return SchemaVersion(SchemaState.CURRENT, revision)
    return SchemaVersion(SchemaState.OLDER if revision in revisions else SchemaState.NEWER, revision)


def _create(database: SqlDatabase) -> SchemaVersion:
    database.make_file()
    with database.writing() as connection:
        lock_schema(connection)
        version = version_in(connection)
        if version.state is not SchemaState.EMPTY:
            return version
        METADATA.create_all(connection, checkfirst=False)
        write_version(connection, REVISIONS[-1])
    return SchemaVersion(SchemaState.CURRENT, REVISIONS[-1])


def refuse_unless_current(database: SqlDatabase, version: SchemaVersion) -> None:
    """Raise what is to be said about an older, newer or unknown schema."""
    match version.state:
        case SchemaState.OLDER:
            raise HistoryUnavailable(
                f"The ledger {database.shown} has an older schema, {version.revision} instead of {REVISIONS[-1]}; "
                f"{_advice(database)}."
            )
        case SchemaState.NEWER:
            raise HistoryUnavailable(
                f"The ledger {database.shown} was written by a newer Jobledger: its schema is {version.revision}, and "
                f"this one knows none after {REVISIONS[-1]}; install the newer version here too."
            )
        case SchemaState.UNSTAMPED:
            raise HistoryUnavailable(
                f"The database {database.shown} has tables named like a ledger's, but no schema version: give "
                "the ledger a database of its own, or run `jobledger db stamp` if these tables are a restored one."
            )
        case SchemaState.EMPTY | SchemaState.CURRENT:
            return


def _advice(database: SqlDatabase) -> str:
    shown = hide_password(database.address)
    if shown == database.address:
        return f"stop what writes to it and run `jobledger db upgrade --history-url {shlex.quote(shown)}`"
    # The program cannot use a masked address, and nobody should type the whole one where others can read it.
    return (
        f"stop what writes to it and run `jobledger db upgrade` with JOBLEDGER_HISTORY_URL set to its address, {shown}"
    )


@contextmanager
def _told_when_in_use(database: SqlDatabase) -> Iterator[None]:
    try:
        yield
    except HistoryUnavailable as error:
        if not _is_lock_trouble(error.__cause__):
            raise
        raise HistoryUnavailable(
            f"The ledger {database.shown} is in use and stays as it was: stop the workers, agents and controllers "
            "that use it, and upgrade again."
        ) from error


def _is_lock_trouble(error: BaseException | None) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else None
    return _LOCK_TROUBLE & {getattr(cause, "sqlstate", None), getattr(cause, "sqlite_errorname", None)} != set()


def _upgrade(database: SqlDatabase) -> Upgrade:
    if version_of(database).state is SchemaState.EMPTY:
        database.make_file()
    with database.writing() as connection:
        _wait_forlock_schema(connection)
        before = version_in(connection)
        applied = _missing(before)
        if applied:
            _migrate(connection)
    if not applied:
        refuse_unless_current(database, before)
    return Upgrade(before, applied)


def _missing(version: SchemaVersion) -> tuple[str, ...]:
    match version.state:
        case SchemaState.EMPTY:
            return REVISIONS
        case SchemaState.OLDER if version.revision is not None:
            return REVISIONS[REVISIONS.index(version.revision) + 1 :]
    return ()


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


def _wait_forlock_schema(connection: Connection) -> None:
    if connection.dialect.name != "postgresql":
        return
    usual = connection.scalar(select(func.current_setting("lock_timeout")))
    connection.execute(select(func.set_config("lock_timeout", f"{_PATIENCE:.0f}s", True)))
    lock_schema(connection)
    connection.execute(select(func.set_config("lock_timeout", usual, True)))


def lock_schema(connection: Connection) -> None:
    """Keep every other process from changing the schema until the end of this transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_POSTGRESQL_LOCK)))


def write_version(connection: Connection, revision: str) -> None:
    """Write the database's version down."""
    _VERSION.create(connection, checkfirst=True)
    connection.execute(_VERSION.delete())
    connection.execute(insert(_VERSION), {"version_num": revision})
