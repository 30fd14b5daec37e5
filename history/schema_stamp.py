"""Writing down which schema a ledger has, for one that was restored without its version."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from ..errors import HistoryUnavailable
from .schema_objects import objects_in, objects_of
from .schema_version import (
    REVISIONS,
    SchemaState,
    alembic_config,
    lock_schema,
    opened,
    refuse_unless_current,
    version_in,
    version_of,
    write_version,
)
from .sql_database import SqlDatabase

_SHOWN_DIFFERENCES: Final = 4


def stamp(url: str, revision: str | None = None) -> str:
    """Write down which schema the database has, recognised by its tables; return the revision.

    For tables that were restored without their version. A revision that is named must be the one that is recognised.

    Raises:
        HistoryUnavailable: where there is no ledger, and for tables that are not exactly those of one version; nothing
            has changed then.
    """
    if revision is not None and revision not in REVISIONS:
        raise HistoryUnavailable(f"There is no schema version {revision!r}; known ones: {', '.join(REVISIONS)}.")
    with opened(url) as database:
        return _restamp(database, revision)


def _restamp(database: SqlDatabase, revision: str | None) -> str:
    if version_of(database).state is SchemaState.EMPTY:
        raise HistoryUnavailable(f"There is no ledger at {database.shown} to stamp; `jobledger db upgrade` makes one.")
    with database.writing() as connection:
        lock_schema(connection)
        version = version_in(connection)
        if version.state is SchemaState.NEWER:
            refuse_unless_current(database, version)
        recognised = _recognised(connection, database)
        if revision not in (None, recognised):
            raise HistoryUnavailable(
                f"The tables of {database.shown} are those of {recognised}, not of {revision}: nothing was stamped."
            )
        write_version(connection, recognised)
    return recognised


def _recognised(connection: Connection, database: SqlDatabase) -> str:
    wanted = {revision: objects_of(connection, alembic_config(), revision) for revision in REVISIONS}
    # Whatever else lives in the same database is nobody's business.
    found = objects_in(connection) & frozenset().union(*wanted.values())
    nearest = min(reversed(REVISIONS), key=lambda revision: len(found ^ wanted[revision]))
    if found != wanted[nearest]:
        raise HistoryUnavailable(
            f"The tables of {database.shown} are those of no version, and nothing was stamped. "
            f"{_difference(found, nearest, wanted[nearest])}"
        )
    return nearest


def _difference(found: frozenset[str], revision: str, wanted: frozenset[str]) -> str:
    lacking, extra = wanted - found, found - wanted
    parts = [f"lack {_listed(lacking)}" if lacking else "", f"have {_listed(extra)} too" if extra else ""]
    return f"Compared with {revision} they {' and '.join(part for part in parts if part)}."


def _listed(objects: frozenset[str]) -> str:
    names = sorted(name for name in objects if not _is_part_of_one(name, objects))
    more = len(names) - _SHOWN_DIFFERENCES
    return ", ".join(names[:_SHOWN_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")


def _is_part_of_one(name: str, objects: frozenset[str]) -> bool:
    kind, _, place = name.partition(" ")
    return kind == "column" and f"table {place.partition('.')[0]}" in objects
