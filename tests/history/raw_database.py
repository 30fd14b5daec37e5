"""A ledger's database without the store: raw statements, its schema as the database tells it, and old ledgers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from jobledger.history.schema import METADATA
from jobledger.history.schema_version import VERSION_TABLE
from jobledger.history.search_index import SEARCH_INDEX_NAMES
from sqlalchemy import Connection, create_engine

ASSETS = Path(__file__).parents[1] / "assets"
POSTGRESQL_SCHEMA = [
    "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default "
    "FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
    "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prokind = 'f' "
    "AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e') ORDER BY 1",
]


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Give a connection in a transaction that is committed."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def run(url: str, *statements: str) -> None:
    """Run statements in one transaction."""
    with connected(url) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def schema_of(url: str) -> list[tuple[object, ...]]:
    """Return everything that the database says of its schema, in an order that does not depend on its making."""
    with connected(url) as connection:
        if connection.dialect.name == "postgresql":
            found = [tuple(row) for query in POSTGRESQL_SCHEMA for row in connection.exec_driver_sql(query)]
            return [row for row in found if VERSION_TABLE not in str(row)]
        master = connection.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2")
        return [(*row[:3], *sorted(_parts(row[3]))) for row in master if row[2] != VERSION_TABLE]


def differences_from_metadata(url: str) -> Any:
    """Return what Alembic would still have to change to make the database what the metadata says."""
    with connected(url) as connection:
        options = {
            "compare_type": True,
            "version_table": VERSION_TABLE,
            "include_object": lambda _object, name, *_: name not in SEARCH_INDEX_NAMES,
        }
        return compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)


def forget_ledger(url: str) -> None:
    """Empty the database."""
    if url.startswith("sqlite"):
        file_of(url).unlink()
    else:
        run(url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")


def file_of(url: str) -> Path:
    """Return the file of an SQLite ledger; its directory is made."""
    file = Path(url.removeprefix("sqlite:///"))
    file.parent.mkdir(exist_ok=True)
    return file


def load_old_ledger(url: str, revision: str) -> None:
    """Fill an empty database with what the code of that revision left behind."""
    kind = "sqlite" if url.startswith("sqlite") else "postgresql"
    script = (ASSETS / f"ledger_{revision}_{kind}.sql").read_text()
    if kind == "sqlite":
        file_of(url).touch()
    with connected(url) as connection:
        cursor = connection.connection.cursor()
        if kind == "sqlite":
            cursor.executescript(f"PRAGMA journal_mode = WAL; {script}")
        else:
            cursor.execute(script)


def _parts(statement: str | None) -> list[str]:
    # SQLite keeps the text of each statement, and the ways to make a table write its columns in orders of their own.
    return [" ".join(part.split()).removesuffix(")").strip() for part in (statement or "").split(",")]
