"""Stamping: a restored ledger gets its version back, recognised by its tables; nothing else is ever stamped."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from jobledger.errors import HistoryUnavailable
from jobledger.history import schema_version
from jobledger.history.schema_stamp import stamp
from jobledger.history.schema_version import REVISIONS, VERSION_TABLE, SchemaState, SchemaVersion
from jobledger.history.sql_store import SqlJobHistoryStore

from .raw_database import file_of, load_old_ledger, run, schema_of

OpenStore = Callable[[str], SqlJobHistoryStore]
NEWEST = REVISIONS[-1]


def forget_version(url: str) -> None:
    run(url, f"DROP TABLE {VERSION_TABLE}")


def test_a_ledger_without_its_version_is_refused_until_it_is_stamped(ledger_url: str, open_store: OpenStore) -> None:
    open_store(ledger_url)
    forget_version(ledger_url)
    assert schema_version.check(ledger_url) == SchemaVersion(SchemaState.UNSTAMPED)
    for attempt in (open_store, schema_version.upgrade):
        with pytest.raises(HistoryUnavailable, match="`jobledger db stamp`"):
            attempt(ledger_url)
    before = schema_of(ledger_url)
    assert stamp(ledger_url) == NEWEST
    open_store(ledger_url).check()
    assert schema_of(ledger_url) == before


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_an_old_ledger_is_recognised_and_can_then_be_upgraded(ledger_url: str, revision: str) -> None:
    load_old_ledger(ledger_url, revision)
    forget_version(ledger_url)
    with pytest.raises(HistoryUnavailable, match=f"those of {revision}, not of {NEWEST}: nothing was stamped"):
        stamp(ledger_url, NEWEST)
    assert stamp(ledger_url, revision) == revision
    assert schema_version.upgrade(ledger_url).applied[-1] == NEWEST


def test_a_wrong_version_is_corrected(ledger_url: str, open_store: OpenStore) -> None:
    open_store(ledger_url)
    run(ledger_url, f"UPDATE {VERSION_TABLE} SET version_num = '0001'")
    assert stamp(ledger_url) == NEWEST
    open_store(ledger_url).check()


def test_half_a_ledger_is_refused_with_what_it_lacks(ledger_url: str, open_store: OpenStore) -> None:
    open_store(ledger_url)
    forget_version(ledger_url)
    on = "" if ledger_url.startswith("sqlite") else " ON job_events"
    trigger = "job_events_are_never_changed" if ledger_url.startswith("sqlite") else "job_events_are_append_only"
    run(ledger_url, "DROP INDEX jobs_by_age", "DROP TABLE leases", f"DROP TRIGGER {trigger}{on}")
    with pytest.raises(HistoryUnavailable) as refusal:
        stamp(ledger_url)
    lacking = f"index jobs_by_age (created_at, job_id), table leases, trigger {trigger}."
    assert f"and nothing was stamped. Compared with {NEWEST} they lack {lacking}" in str(refusal.value)
    assert schema_version.check(ledger_url).state is SchemaState.UNSTAMPED


def test_what_else_lives_in_the_database_does_not_matter_and_stays(ledger_url: str, open_store: OpenStore) -> None:
    open_store(ledger_url)
    forget_version(ledger_url)
    run(ledger_url, "CREATE TABLE paintings (title TEXT)", "INSERT INTO paintings VALUES ('dusk')")
    before = schema_of(ledger_url)
    assert stamp(ledger_url) == NEWEST
    assert schema_of(ledger_url) == before


def test_somebody_elses_tables_are_not_stamped(ledger_url: str, sqlite_url: str) -> None:
    file_of(sqlite_url)
    run(ledger_url, "CREATE TABLE jobs (title TEXT)")
    with pytest.raises(HistoryUnavailable, match="those of no version"):
        stamp(ledger_url)
    assert schema_version.check(ledger_url).state is SchemaState.UNSTAMPED


def test_only_a_ledger_and_only_a_known_version_can_be_stamped(ledger_url: str) -> None:
    with pytest.raises(HistoryUnavailable, match="no ledger at"):
        stamp(ledger_url)
    with pytest.raises(HistoryUnavailable, match="no schema version '0815'"):
        stamp(ledger_url, "0815")
    assert schema_version.check(ledger_url).state is SchemaState.EMPTY
