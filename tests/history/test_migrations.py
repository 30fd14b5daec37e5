"""The schema: made whole at once or by migrations, the same; and never touched when it is not ours to touch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from jobledger.errors import HistoryUnavailable
from jobledger.history import schema_version
from jobledger.history.event import now
from jobledger.history.job import JobHistoryEntry
from jobledger.history.job_row import row_of
from jobledger.history.node import Node
from jobledger.history.schema import METADATA, jobs, nodes
from jobledger.history.schema_version import REVISIONS, VERSION_TABLE, SchemaState
from jobledger.history.sql_database import SqlDatabase
from jobledger.history.sql_store import SqlJobHistoryStore
from sqlalchemy import Connection, create_engine

OpenStore = Callable[[str], SqlJobHistoryStore]

POSTGRESQL_SCHEMA = [
    "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default "
    "FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
    "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
]


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def run(url: str, *statements: str) -> None:
    with connected(url) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def schema_of(url: str) -> list[tuple[object, ...]]:
    with connected(url) as connection:
        if connection.dialect.name == "postgresql":
            found = [tuple(row) for query in POSTGRESQL_SCHEMA for row in connection.exec_driver_sql(query)]
            return [row for row in found if VERSION_TABLE not in str(row)]
        master = connection.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2")
        return [(*row[:3], *sorted(_parts(row[3]))) for row in master if row[2] != VERSION_TABLE]


def forget_ledger(url: str) -> None:
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).unlink()
    else:
        run(url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")


def test_migrations_lead_to_the_schema_that_a_fresh_ledger_gets(ledger_url: str) -> None:
    SqlJobHistoryStore.open(ledger_url).close()
    fresh = schema_of(ledger_url)
    forget_ledger(ledger_url)
    assert schema_version.upgrade(ledger_url) is SchemaState.EMPTY
    assert schema_of(ledger_url) == fresh
    assert len(fresh) > len(METADATA.tables)


def test_alembic_finds_no_difference_between_migrations_and_metadata(ledger_url: str) -> None:
    schema_version.upgrade(ledger_url)
    with connected(ledger_url) as connection:
        options = {"compare_type": True, "version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, METADATA) == []


def test_the_known_revisions_are_those_of_the_migrations() -> None:
    scripts = ScriptDirectory.from_config(schema_version.alembic_config())
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS


def test_the_columns_carry_every_field_of_a_job_and_of_a_node() -> None:
    blank = JobHistoryEntry(job_id="job", created_at=now())
    assert set(row_of(blank)) == set(jobs.c.keys())
    assert set(Node.__struct_fields__) == set(nodes.c.keys())


def test_a_fresh_ledger_is_current_and_stays_so(ledger_url: str, open_store: OpenStore) -> None:
    assert schema_version.check(ledger_url) is SchemaState.EMPTY
    open_store(ledger_url)
    assert schema_version.check(ledger_url) is SchemaState.CURRENT
    assert schema_version.upgrade(ledger_url) is SchemaState.CURRENT
    open_store(ledger_url).check()


def test_a_migrated_ledger_can_be_opened(ledger_url: str, open_store: OpenStore) -> None:
    schema_version.upgrade(ledger_url)
    assert open_store(ledger_url).list_jobs() == []


def test_checking_creates_nothing(tmp_path: Path) -> None:
    assert schema_version.check(f"sqlite:///{tmp_path}/none/ledger.db") is SchemaState.EMPTY
    assert list(tmp_path.iterdir()) == []


def test_a_newer_ledger_is_refused_and_left_alone(ledger_url: str, open_store: OpenStore) -> None:
    open_store(ledger_url)
    run(ledger_url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    before = schema_of(ledger_url)
    assert schema_version.check(ledger_url) is SchemaState.NEWER
    with pytest.raises(HistoryUnavailable, match="written by a newer Jobledger"):
        open_store(ledger_url)
    with pytest.raises(HistoryUnavailable, match="written by a newer Jobledger"):
        schema_version.upgrade(ledger_url)
    assert schema_of(ledger_url) == before


def test_an_older_ledger_is_refused_with_the_command_that_helps(ledger_url: str, open_store: OpenStore) -> None:
    open_store(ledger_url)
    database = SqlDatabase(ledger_url)
    with pytest.raises(HistoryUnavailable, match=r"older schema.*`jobledger db upgrade`"):
        schema_version.open_schema(database, (*REVISIONS, "9999"))
    database.close()


def test_a_ledger_without_its_version_is_refused_until_it_is_stamped(ledger_url: str, open_store: OpenStore) -> None:
    open_store(ledger_url)
    run(ledger_url, f"DROP TABLE {VERSION_TABLE}")
    with pytest.raises(HistoryUnavailable, match="`jobledger db stamp`"):
        open_store(ledger_url)
    with pytest.raises(HistoryUnavailable, match="`jobledger db stamp`"):
        schema_version.upgrade(ledger_url)
    schema_version.stamp(ledger_url)
    open_store(ledger_url).check()


def test_only_a_ledger_and_only_a_known_version_can_be_stamped(ledger_url: str) -> None:
    with pytest.raises(HistoryUnavailable, match="no ledger at"):
        schema_version.stamp(ledger_url)
    with pytest.raises(HistoryUnavailable, match="no schema version '0815'"):
        schema_version.stamp(ledger_url, "0815")
    assert schema_version.check(ledger_url) is SchemaState.EMPTY


def test_somebody_elses_table_of_the_same_name_is_not_touched(
    ledger_url: str, sqlite_url: str, open_store: OpenStore
) -> None:
    Path(sqlite_url.removeprefix("sqlite:///")).parent.mkdir()
    run(ledger_url, "CREATE TABLE jobs (title TEXT)", "INSERT INTO jobs VALUES ('painter')")
    with pytest.raises(HistoryUnavailable, match="a database of its own"):
        open_store(ledger_url)
    with connected(ledger_url) as connection:
        assert connection.exec_driver_sql("SELECT title FROM jobs").scalar_one() == "painter"


def test_tables_of_other_names_may_live_beside_a_ledger(
    ledger_url: str, sqlite_url: str, open_store: OpenStore
) -> None:
    Path(sqlite_url.removeprefix("sqlite:///")).parent.mkdir()
    run(ledger_url, "CREATE TABLE paintings (title TEXT)", "CREATE TABLE alembic_version (version_num TEXT)")
    open_store(ledger_url).check()


def _parts(statement: str | None) -> list[str]:
    # SQLite keeps the text of each statement, and the two ways write columns in their own order of words.
    return [" ".join(part.split()) for part in (statement or "").split(",")]
