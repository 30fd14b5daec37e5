"""The schema: made whole at once or by migrations, the same; and never touched when it is not ours to touch."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from jobledger.errors import HistoryUnavailable
from jobledger.history import schema_stamp, schema_version
from jobledger.history.event import now
from jobledger.history.job import JobHistoryEntry
from jobledger.history.job_row import row_of
from jobledger.history.node import Node
from jobledger.history.schema import METADATA, jobs, nodes
from jobledger.history.schema_version import REVISIONS, VERSION_TABLE, SchemaState, SchemaVersion, Upgrade, lock_schema
from jobledger.history.sql_store import SqlJobHistoryStore

from .raw_database import connected, differences_from_metadata, file_of, forget_ledger, load_old_ledger, run, schema_of

OpenStore = Callable[[str], SqlJobHistoryStore]


def test_migrations_lead_to_the_schema_that_a_fresh_ledger_gets(ledger_url: str) -> None:
    SqlJobHistoryStore.open(ledger_url).close()
    fresh = schema_of(ledger_url)
    forget_ledger(ledger_url)
    assert schema_version.upgrade(ledger_url) == Upgrade(SchemaVersion(SchemaState.EMPTY), REVISIONS)
    assert schema_of(ledger_url) == fresh
    assert len(fresh) > len(METADATA.tables)


def test_alembic_finds_no_difference_between_migrations_and_metadata(ledger_url: str) -> None:
    schema_version.upgrade(ledger_url)
    assert differences_from_metadata(ledger_url) == []


def test_the_known_revisions_are_those_of_the_migrations() -> None:
    scripts = ScriptDirectory.from_config(schema_version.alembic_config())
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS


def test_the_columns_carry_every_field_of_a_job_and_of_a_node() -> None:
    blank = JobHistoryEntry(job_id="job", created_at=now())
    assert len(row_of(blank)) == len(jobs.c)
    assert set(Node.__struct_fields__) == set(nodes.c.keys())


def test_a_fresh_ledger_is_current_and_stays_so(ledger_url: str, open_store: OpenStore) -> None:
    current = SchemaVersion(SchemaState.CURRENT, REVISIONS[-1])
    assert schema_version.check(ledger_url) == SchemaVersion(SchemaState.EMPTY)
    open_store(ledger_url)
    assert schema_version.check(ledger_url) == current
    assert schema_version.upgrade(ledger_url) == Upgrade(current, ())
    open_store(ledger_url).check()


def test_a_migrated_ledger_can_be_opened(ledger_url: str, open_store: OpenStore) -> None:
    schema_version.upgrade(ledger_url)
    assert open_store(ledger_url).list_jobs() == []


def test_checking_creates_nothing(tmp_path: Path) -> None:
    assert schema_version.check(f"sqlite:///{tmp_path}/none/ledger.db").state is SchemaState.EMPTY
    assert list(tmp_path.iterdir()) == []


def test_a_newer_ledger_is_refused_and_left_alone(ledger_url: str, open_store: OpenStore) -> None:
    open_store(ledger_url)
    run(ledger_url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    before = schema_of(ledger_url)
    assert schema_version.check(ledger_url) == SchemaVersion(SchemaState.NEWER, "9999")
    for attempt in (open_store, schema_version.upgrade, schema_stamp.stamp):
        with pytest.raises(
            HistoryUnavailable, match=f"newer Jobledger: its schema is 9999.* none after {REVISIONS[-1]}"
        ):
            attempt(ledger_url)
    assert schema_of(ledger_url) == before


def test_somebody_elses_table_of_the_same_name_is_not_touched(
    ledger_url: str, sqlite_url: str, open_store: OpenStore
) -> None:
    file_of(sqlite_url)
    run(ledger_url, "CREATE TABLE jobs (title TEXT)", "INSERT INTO jobs VALUES ('painter')")
    with pytest.raises(HistoryUnavailable, match="a database of its own"):
        open_store(ledger_url)
    with connected(ledger_url) as connection:
        assert connection.exec_driver_sql("SELECT title FROM jobs").scalar_one() == "painter"


def test_tables_of_other_names_may_live_beside_a_ledger(
    ledger_url: str, sqlite_url: str, open_store: OpenStore
) -> None:
    file_of(sqlite_url)
    run(ledger_url, "CREATE TABLE paintings (title TEXT)", "CREATE TABLE alembic_version (version_num TEXT)")
    open_store(ledger_url).check()


def test_a_ledger_in_use_is_not_upgraded(postgresql_url: str) -> None:
    load_old_ledger(postgresql_url, REVISIONS[0])
    with connected(postgresql_url) as somebody:
        somebody.exec_driver_sql("LOCK TABLE jobs IN ACCESS SHARE MODE")
        with pytest.raises(HistoryUnavailable, match="is in use and stays as it was: stop the workers"):
            schema_version.upgrade(postgresql_url)
    assert schema_version.check(postgresql_url) == SchemaVersion(SchemaState.OLDER, REVISIONS[0])


def test_an_upgrade_waits_for_another_one_longer_than_for_anything_else(postgresql_url: str, eventually: Any) -> None:
    with ThreadPoolExecutor() as pool, connected(postgresql_url) as another:
        lock_schema(another)
        waiting = pool.submit(schema_version.upgrade, postgresql_url)
        asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        eventually(lambda: another.exec_driver_sql(asked).scalar())
        lock_timeout = 5.0
        since = time.monotonic()
        eventually(lambda: time.monotonic() - since > lock_timeout + 1)
        assert not waiting.done()
        another.rollback()
        assert waiting.result(timeout=30).applied == REVISIONS
