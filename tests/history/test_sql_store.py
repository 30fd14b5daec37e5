"""What only a ledger on a disk or a server can get wrong: processes, locks, crashes, files, plans."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from jobledger.errors import EventRefused, HistoryUnavailable, SettingsError
from jobledger.history import sql_database
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.fold import fold
from jobledger.history.job import JobFacts, JobHistoryEntry, JobStatus, Snapshot
from jobledger.history.job_history_store import (
    CancelIntent,
    JobHistoryStore,
    JobSubmission,
    JournalOffset,
)
from jobledger.history.recordable import recordable
from jobledger.history.sql_recording import record_events
from jobledger.history.sql_store import SqlJobHistoryStore
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

OpenStore = Callable[[str], SqlJobHistoryStore]
DAWN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SNAPSHOT = Snapshot(sealed="gAAAAA", digest="d", size=1, key_fingerprint="k")

WRITER = """
import sys
from datetime import datetime, timedelta, UTC
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.job import JobEnd, JobFacts, JobStatus
from jobledger.history.sql_store import SqlJobHistoryStore

url, name, batches, jobs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
dawn = datetime(2026, 1, 2, tzinfo=UTC)
sys.stdin.readline()
store = SqlJobHistoryStore.open(url, busy_timeout=60)
for batch in range(batches):
    numbers = list(range(jobs))
    if (batch + int(name)) % 2:
        numbers.reverse()
    events = []
    for number in numbers:
        at = dawn + timedelta(seconds=batch, microseconds=int(name))
        kind = [EventKind.RECEIVED, EventKind.STARTED, EventKind.ENDED][batch % 3]
        events.append(JobEvent(
            kind=kind, job_id=f"job-{batch % 4}-{number}", at=at, source=f"{name}/{batch}", run_id=name,
            retries=batch % 2, facts=JobFacts(task="t", queue=name) if batch % 3 == 0 else None,
            end=JobEnd(status=JobStatus.FAILED, at=at, retries=batch % 2, run_id=name) if batch % 3 == 2 else None,
        ))
    store.append(events)
store.close()
"""

SHIPPER = """
import sys
from datetime import datetime, UTC
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.job_history_store import JournalOffset
from jobledger.history.sql_store import SqlJobHistoryStore

url, name, parts = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.stdin.readline()
store = SqlJobHistoryStore.open(url, busy_timeout=60)
won = lost = at = 0
while at < parts:
    part = JobEvent(kind=EventKind.PUBLISHED, job_id="job", at=datetime(2026, 1, 2, tzinfo=UTC), source=str(at))
    if store.append([part], JournalOffset(journal="j", start=at, end=at + 1)):
        won, at = won + 1, at + 1
    else:
        lost, at = lost + 1, store.journal_ends(["j"])["j"]
store.close()
print(won, lost)
"""


def in_processes(script: str, arguments: Sequence[Sequence[object]]) -> list[str]:
    """Run the script once for each arguments, all let go at the same moment; return what they printed."""
    processes = [_started(script, each) for each in arguments]
    try:
        results = []
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            output, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
            results.append(output)
        return results
    finally:
        for process in processes:
            process.kill()
            process.wait()


def started(job_id: str, worker_id: str = "node") -> JobEvent:
    return JobEvent(kind=EventKind.STARTED, job_id=job_id, at=DAWN, run_id="run", worker_id=worker_id)


@contextmanager
def raw(url: str) -> Iterator[Connection]:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def submission(job_id: str = "job", task: str = "t", seconds: float = 0) -> JobSubmission:
    at = DAWN + timedelta(seconds=seconds)
    return JobSubmission(job_id=job_id, at=at, facts=JobFacts(task=task, queue="q"), snapshot=SNAPSHOT)


def said_by(error: BaseException | None) -> str:
    """Everything that an error and all of its causes say."""
    return "" if error is None else f"{error!r} {error} {said_by(error.__cause__ or error.__context__)}"


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


class TestPersistence:
    def test_everything_is_there_after_the_ledger_was_opened_again(
        self, ledger_url: str, open_store: OpenStore
    ) -> None:
        first = open_store(ledger_url)
        first.record_job_submission(submission())
        first.request_cancel(CancelIntent(job_id="job", requested_at=DAWN, actor="ann"))
        first.append(
            [JobEvent(kind=EventKind.LOG, job_id="job", at=DAWN, text="line")],
            JournalOffset(journal="j", start=0, end=9),
        )
        assert first.acquire_lease("leader", "ann", 60) == 1
        before = _everything(first)
        first.close()
        second = open_store(ledger_url)
        assert _everything(second) == before
        assert second.acquire_lease("leader", "bob", 60) is None

    def test_a_ledger_belongs_to_its_user_only(self, sqlite_url: str, open_store: OpenStore) -> None:
        open_store(sqlite_url).record_job_submission(submission())
        file = file_of(sqlite_url)
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert {stat.S_IMODE(each.stat().st_mode) for each in file.parent.iterdir()} == {0o600}

    def test_readers_and_a_writer_do_not_wait_for_each_other(self, sqlite_url: str, open_store: OpenStore) -> None:
        store = open_store(sqlite_url)
        store.record_job_submission(submission())
        with raw(sqlite_url) as reader:
            assert reader.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
            reader.exec_driver_sql("BEGIN")
            reader.exec_driver_sql("SELECT * FROM jobs").all()
            store.record_status_change("job", JobStatus.RUNNING, DAWN)
        entry = store.get_job("job")
        assert entry is not None
        assert entry.status is JobStatus.RUNNING

    def test_a_file_that_is_empty_becomes_a_ledger(self, sqlite_url: str, open_store: OpenStore) -> None:
        file_of(sqlite_url).parent.mkdir()
        file_of(sqlite_url).touch()
        open_store(sqlite_url).check()


class TestManyWriters:
    def test_nothing_of_many_writers_is_lost_or_doubled(self, ledger_url: str, open_store: OpenStore) -> None:
        writers, batches, jobs = 4, 12, 25
        in_processes(WRITER, [(ledger_url, number, batches, jobs) for number in range(writers)])
        store = open_store(ledger_url)
        entries = store.list_jobs(limit=500)
        assert len(entries) == 4 * jobs
        seen = set()
        for entry in entries:
            events = [recorded.event for recorded in store.get_job_events(entry.job_id)]
            seen |= {(event.job_id, event.source) for event in events}
            assert len(events) == writers * batches // 4
            assert entry == _folded(events)
        assert len(seen) == writers * batches * jobs

    def test_two_agents_with_the_same_journal_record_each_part_once(
        self, ledger_url: str, open_store: OpenStore
    ) -> None:
        parts = 150
        results = in_processes(SHIPPER, [(ledger_url, name, parts) for name in ("a", "b")])
        assert sum(int(result.split()[0]) for result in results) == parts
        store = open_store(ledger_url)
        sources = [recorded.event.source for recorded in store.get_job_events("job")]
        assert sources == [str(part) for part in range(parts)]
        assert store.journal_ends(["j"]) == {"j": parts}

    def test_many_processes_may_open_a_fresh_ledger_at_once(self, ledger_url: str) -> None:
        script = (
            "import sys; from jobledger.history.sql_store import SqlJobHistoryStore; sys.stdin.readline();"
            "s = SqlJobHistoryStore.open(sys.argv[1], 60);"
            "print(s.acquire_lease('leader', sys.argv[2], 600)); s.close()"
        )
        results = in_processes(script, [(ledger_url, number) for number in range(5)])
        assert sorted(result.strip() for result in results) == ["1", "None", "None", "None", "None"]


class TestAppendOnly:
    @pytest.mark.parametrize(
        "statement", ["UPDATE job_events SET at = 0", "DELETE FROM job_events", "DELETE FROM job_events WHERE seq = 1"]
    )
    def test_events_can_be_neither_changed_nor_deleted(
        self, ledger_url: str, open_store: OpenStore, statement: str
    ) -> None:
        store = open_store(ledger_url)
        store.record_job_submission(submission())
        before = store.get_job_events("job")
        with raw(ledger_url) as connection, pytest.raises(DBAPIError, match="job_events is append-only"):
            connection.execute(text(statement))
        assert store.get_job_events("job") == before

    def test_events_cannot_be_emptied_out(self, postgresql_url: str, open_store: OpenStore) -> None:
        open_store(postgresql_url)
        with raw(postgresql_url) as connection, pytest.raises(DBAPIError, match="job_events is append-only"):
            connection.execute(text("TRUNCATE job_events"))

    def test_the_events_of_a_removed_job_can_go_and_take_nothing_else_with_them(
        self, ledger_url: str, open_store: OpenStore
    ) -> None:
        store = open_store(ledger_url)
        for job_id in ("old", "new"):
            store.record_job_submission(submission(job_id))
            store.append([JobEvent(kind=EventKind.LOG, job_id=job_id, at=DAWN, text="line")])
            store.request_cancel(CancelIntent(job_id=job_id, requested_at=DAWN))
        with raw(ledger_url) as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            connection.execute(text("DELETE FROM jobs WHERE job_id = 'old'"))
            connection.execute(text("DELETE FROM job_events WHERE job_id = 'old'"))
            connection.commit()
        assert (store.get_job_events("old"), store.get_snapshot("old"), store.get_job_log("old")) == ([], None, [])
        assert not store.has_cancel_intent("old")
        assert len(store.get_job_events("new")) == 2
        assert store.get_snapshot("new") == SNAPSHOT


class TestTroubles:
    @pytest.mark.parametrize(
        ("url", "hint"),
        [
            ("nonsense", "not a database address"),
            ("", "not a database address"),
            ("postgresql://u:hunter2@host:port/db", "not a database address"),
            ("mysql://u:hunter2@host/db", "cannot be kept in 'mysql'"),
            ("postgresql+asyncpg://u:hunter2@host/db", "cannot be kept in"),
            ("sqlite://", "needs a file"),
            ("sqlite:///:memory:", "needs a file"),
        ],
    )
    def test_an_address_that_cannot_hold_a_ledger_is_a_wrong_setting(self, url: str, hint: str) -> None:
        with pytest.raises(SettingsError, match=hint) as caught:
            SqlJobHistoryStore.open(url)
        assert "JOBLEDGER_HISTORY_URL" in str(caught.value)
        assert "hunter2" not in said_by(caught.value)

    @pytest.mark.parametrize("query", ["", "?password=hunter2", "?application_name=hunter2"])
    def test_a_server_that_is_away_is_named_without_its_password(self, query: str) -> None:
        with pytest.raises(HistoryUnavailable, match=r"127\.0\.0\.1:1/ledger does not answer") as caught:
            SqlJobHistoryStore.open(f"postgresql://user:hunter2@127.0.0.1:1/ledger{query}")
        assert caught.value.__cause__ is not None
        assert "hunter2" not in said_by(caught.value)

    def test_a_missing_driver_is_named_with_what_installs_it(self) -> None:
        script = (
            "import sys; sys.modules['psycopg'] = None; from jobledger.history.sql_store import SqlJobHistoryStore\n"
            "try: SqlJobHistoryStore.open('postgresql://127.0.0.1/ledger')\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        [said] = in_processes(script, [()])
        assert said.startswith("HistoryUnavailable")
        assert "jobledger[postgres]" in said

    def test_data_never_shows_in_an_error(self, sqlite_url: str, open_store: OpenStore) -> None:
        store = open_store(sqlite_url)
        with raw(sqlite_url) as connection:
            connection.exec_driver_sql("DROP TABLE job_events")
            connection.commit()
        with pytest.raises(HistoryUnavailable) as caught:
            store.record_status_change("job", JobStatus.FAILED, DAWN, "the password is hunter2")
        assert "hunter2" not in said_by(caught.value)
        assert store.list_jobs() == []

    def test_a_locked_ledger_answers_readers_and_takes_writes_again_after_the_lock(self, sqlite_url: str) -> None:
        store = SqlJobHistoryStore.open(sqlite_url, busy_timeout=0.05)
        store.record_job_submission(submission())
        blocker = sqlite3.connect(file_of(sqlite_url), isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(HistoryUnavailable, match="database is locked"):
            store.record_status_change("job", JobStatus.RUNNING, DAWN)
        assert store.get_job("job") is not None
        blocker.execute("ROLLBACK")
        blocker.close()
        store.record_status_change("job", JobStatus.RUNNING, DAWN)
        assert len(store.get_job_events("job")) == 2
        store.close()

    def test_who_stops_in_the_middle_of_a_transaction_keeps_others_waiting_for_a_while_only(
        self, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sql_database._DEAD_CLIENT, "idle_in_transaction_session_timeout", "200ms")
        stopped, other = SqlJobHistoryStore.open(postgresql_url), SqlJobHistoryStore.open(postgresql_url)

        def write_while_it_stops() -> None:
            with stopped._database.writing() as connection:
                record_events(connection, [recordable(started("job"))])
                # The same process, and so the same shard of the sums.
                other.append([started("other")])

        with pytest.raises(HistoryUnavailable):
            write_while_it_stops()
        assert [entry.job_id for entry in other.list_jobs()] == ["other"]
        stopped.append([started("job")])
        assert other.get_job("job") is not None
        stopped.close()
        other.close()

    def test_a_value_that_no_index_takes_is_refused_and_not_taken_for_an_outage(self, postgresql_url: str) -> None:
        store = SqlJobHistoryStore.open(postgresql_url)
        endless = "".join(sha256(str(number).encode()).hexdigest() for number in range(500))
        with pytest.raises(EventRefused):
            store.append([started("job", worker_id=endless)])
        assert store.get_job("job") is None
        store.close()

    def test_a_locked_row_is_waited_for_no_longer_than_the_busy_timeout(self, postgresql_url: str) -> None:
        store = SqlJobHistoryStore.open(postgresql_url, busy_timeout=0.05)
        store.record_job_submission(submission())
        with raw(postgresql_url) as blocker:
            blocker.execute(text("SELECT * FROM jobs FOR UPDATE"))
            with pytest.raises(HistoryUnavailable, match="lock timeout"):
                store.record_status_change("job", JobStatus.RUNNING, DAWN)
        store.record_status_change("job", JobStatus.RUNNING, DAWN)
        store.close()

    def test_a_lost_connection_is_made_again(self, postgresql_url: str, open_store: OpenStore) -> None:
        store = open_store(postgresql_url)
        with raw(postgresql_url) as killer:
            killer.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        store.record_job_submission(submission())
        assert store.get_job("job") is not None

    @pytest.mark.parametrize("content", [b"this is no database at all" * 100, b"SQLite format 3\x00" + b"x" * 4_000])
    def test_a_file_that_is_no_database_is_refused_and_left_alone(self, sqlite_url: str, content: bytes) -> None:
        file_of(sqlite_url).parent.mkdir()
        file_of(sqlite_url).write_bytes(content)
        with pytest.raises(HistoryUnavailable, match="does not answer"):
            SqlJobHistoryStore.open(sqlite_url)
        assert file_of(sqlite_url).read_bytes() == content

    def test_a_directory_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(HistoryUnavailable, match="does not answer"):
            SqlJobHistoryStore.open(f"sqlite:///{tmp_path}/file/ledger.db")

    def test_a_batch_that_fails_in_its_middle_leaves_nothing_behind(
        self, sqlite_url: str, open_store: OpenStore
    ) -> None:
        store = open_store(sqlite_url)
        with raw(sqlite_url) as connection:
            connection.exec_driver_sql("DROP TABLE job_snapshots")
            connection.commit()
        offset = JournalOffset(journal="j", start=0, end=9)
        with pytest.raises(HistoryUnavailable):
            store.append([JobEvent(kind=EventKind.RECEIVED, job_id="job", at=DAWN, snapshot=SNAPSHOT)], offset)
        assert (store.list_jobs(), store.get_job_events("job"), store.journal_ends(["j"])) == ([], [], {})


def _started(script: str, arguments: Sequence[object]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _everything(store: JobHistoryStore) -> tuple[object, ...]:
    return (
        store.list_jobs(),
        store.get_job_events("job"),
        store.get_job_log("job"),
        store.get_snapshot("job"),
        store.open_cancels(),
        store.journal_ends(["j"]),
    )


def _folded(events: Sequence[JobEvent]) -> JobHistoryEntry | None:
    entry: JobHistoryEntry | None = None
    for one in events:
        entry = fold(entry, one)
    return entry


def test_a_ledger_file_that_is_gone_is_said_to_be_gone_and_not_made_anew(tmp_path: Path) -> None:
    store = SqlJobHistoryStore.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    store.check()
    (tmp_path / "ledger.db").unlink()

    with pytest.raises(HistoryUnavailable, match="gone"):
        store.list_jobs()

    assert not (tmp_path / "ledger.db").exists()
    store.close()


def test_a_ledger_file_that_was_replaced_is_used_from_then_on(tmp_path: Path) -> None:
    """A backup that was put back: nothing may go into the old file, which nobody can see any more."""
    store = SqlJobHistoryStore.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    SqlJobHistoryStore.open(f"sqlite:///{tmp_path / 'backup.db'}").close()
    store.check()
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"ledger.db{suffix}").unlink(missing_ok=True)
    (tmp_path / "backup.db").rename(tmp_path / "ledger.db")

    store.record_status_change("job", JobStatus.RUNNING, datetime.now(UTC))

    again = SqlJobHistoryStore.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    assert again.get_job("job") is not None
    store.close()
    again.close()
