"""The recorder: every whole line once, in any company, and nothing deleted before it is in the ledger."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jobledger.errors import HistoryUnavailable
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.job import JobFacts, Progress, Snapshot
from jobledger.history.job_history_store import JobHistoryStore, JournalOffset
from jobledger.history.journal import Journal, journal_ends, journal_files
from jobledger.history.memory_store import MemoryJobHistoryStore
from jobledger.history.recorder import BATCH_BYTES, Recorder
from jobledger.history.sql_store import SqlJobHistoryStore

SEGMENT = 2**26


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "journal").mkdir()
    return tmp_path / "journal"


@pytest.fixture(params=["memory", "sqlite"])
def ledger(
    request: pytest.FixtureRequest, open_store: Callable[[str], SqlJobHistoryStore], sqlite_url: str
) -> JobHistoryStore:
    return MemoryJobHistoryStore() if request.param == "memory" else open_store(sqlite_url)


@pytest.fixture
def recorder(directory: Path, ledger: JobHistoryStore) -> Recorder:
    return Recorder(directory, ledger)


@pytest.fixture
def journal(directory: Path) -> Iterator[Journal]:
    journal = Journal(directory, "boot", segment=SEGMENT)
    yield journal
    journal.close()


class HandWriter:
    """Writes a journal byte by byte, as no program of ours would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def write(self, *parts: bytes) -> None:
        assert self._fd is not None
        for part in parts:
            assert os.write(self._fd, part) == len(part)

    def die(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


@pytest.fixture
def writer(directory: Path) -> Iterator[HandWriter]:
    writer = HandWriter(directory / "boot.hand.jsonl")
    yield writer
    writer.die()


def event(job_id: int | str, text: str | None = None, **fields: Any) -> JobEvent:
    return JobEvent(kind=EventKind.STARTED, job_id=str(job_id), at=now(), text=text, **fields)


def line(job_id: int | str, text: str | None = None, **fields: Any) -> bytes:
    return msgspec.json.encode(event(job_id, text, **fields)) + b"\n"


def ship_all(recorder: Recorder) -> None:
    while recorder.ship():
        pass


def ship_until_deleted(recorder: Recorder, directory: Path, eventually: Any) -> None:
    eventually(lambda: recorder.ship() is not None and not journal_files(directory))


def job_ids(store: JobHistoryStore) -> set[str]:
    ids: set[str] = set()
    while page := store.list_jobs(limit=500, offset=len(ids)):
        ids |= {entry.job_id for entry in page}
    return ids


def texts(store: JobHistoryStore, job_id: int | str) -> list[str | None]:
    return [recorded.event.text for recorded in store.get_job_events(str(job_id))]


def poison_of(store: JobHistoryStore, sqlite_url: str) -> list[tuple[int, bytes]]:
    """The places and lines that were set aside."""
    if isinstance(store, MemoryJobHistoryStore):
        return sorted((at, line.line) for kept in store._journals.values() for at, line in kept.poison.items())
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as ledger:
        found = ledger.execute("SELECT offset, line, reason FROM poison_lines ORDER BY offset").fetchall()
    ledger.close()
    assert all(reason for _, _, reason in found)
    return [(at, bytes(text)) for at, text, _ in found]


class TestOnlyWholeLines:
    def test_everything_that_was_written_is_recorded_in_its_order(
        self, recorder: Recorder, ledger: JobHistoryStore, journal: Journal
    ) -> None:
        for number in range(50):
            journal.append(event("job", str(number)))
        ship_all(recorder)
        assert texts(ledger, "job") == [str(number) for number in range(50)]

    def test_a_half_line_waits_for_its_other_half(
        self, recorder: Recorder, ledger: JobHistoryStore, writer: HandWriter
    ) -> None:
        second = line(2)
        writer.write(line(1), second[:20])
        ship_all(recorder)
        assert job_ids(ledger) == {"1"}
        writer.write(second[20:-1])
        ship_all(recorder)
        assert job_ids(ledger) == {"1"}
        writer.write(b"\n")
        ship_all(recorder)
        assert job_ids(ledger) == {"1", "2"}
        assert ledger.recording_gaps() == []

    def test_unicode_survives_wherever_a_batch_is_cut(
        self, recorder: Recorder, ledger: JobHistoryStore, journal: Journal
    ) -> None:
        text = "\U0001f30a\u2028\x85\u20acx" * 1_003
        count = 2 * BATCH_BYTES // len(text.encode()) + 3
        for number in range(count):
            journal.append(event("job", f"{text}{number}"))
        ship_all(recorder)
        assert texts(ledger, "job") == [f"{text}{number}" for number in range(count)]

    def test_a_line_larger_than_a_batch_is_one_event(
        self, recorder: Recorder, ledger: JobHistoryStore, journal: Journal
    ) -> None:
        text = "x" * (3 * BATCH_BYTES)
        journal.append(event("job", text))
        journal.append(event("job", "next"))
        ship_all(recorder)
        assert texts(ledger, "job") == [text, "next"]

    def test_bytes_that_arrive_while_it_reads_are_recorded_once(
        self, recorder: Recorder, ledger: JobHistoryStore, directory: Path, eventually: Any
    ) -> None:
        code = """
import sys
from pathlib import Path
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.journal import Journal
journal = Journal(Path(sys.argv[1]), "boot", segment=300_000)
for number in range(5_000):
    journal.append(JobEvent(kind=EventKind.STARTED, job_id=str(number % 7), at=now(), text=str(number)))
"""
        program = subprocess.Popen([sys.executable, "-c", code, str(directory)])
        while program.poll() is None:
            recorder.ship()
        assert program.returncode == 0
        ship_until_deleted(recorder, directory, eventually)
        recorded = [int(text or "") for job in range(7) for text in texts(ledger, job)]
        assert sorted(recorded) == list(range(5_000))


class TestTheEndOfAJournal:
    def test_is_not_before_its_writer_is_gone(
        self, recorder: Recorder, ledger: JobHistoryStore, journal: Journal, directory: Path, eventually: Any
    ) -> None:
        journal.append(event(1))
        for _ in range(30):
            recorder.ship()
        assert len(journal_files(directory)) == 1
        assert not recorder.boot_is_recorded("boot")
        journal.close()
        ship_until_deleted(recorder, directory, eventually)
        assert recorder.boot_is_recorded("boot")

    def test_is_not_before_the_ledger_holds_it(self, directory: Path, journal: Journal, sqlite_url: str) -> None:
        store = SqlJobHistoryStore.open(sqlite_url, busy_timeout=0.05)
        recorder = Recorder(directory, store)
        journal.append(event(1))
        journal.close()
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        for _ in range(3):
            with pytest.raises(HistoryUnavailable):
                recorder.ship()
        assert len(journal_files(directory)) == 1
        other.execute("ROLLBACK")
        other.close()
        while not recorder.boot_is_recorded("boot"):
            recorder.ship()
        assert texts(store, 1) == [None]
        store.close()

    def test_torn_off_by_a_death_is_set_aside_once(
        self,
        recorder: Recorder,
        ledger: JobHistoryStore,
        writer: HandWriter,
        directory: Path,
        sqlite_url: str,
        eventually: Any,
    ) -> None:
        whole, torn = line(1), line(2)[:-5]
        writer.write(whole, torn)
        ship_all(recorder)
        assert ledger.recording_gaps() == []
        writer.die()
        ship_until_deleted(recorder, directory, eventually)
        assert poison_of(ledger, sqlite_url) == [(len(whole), torn)]
        [gap] = ledger.recording_gaps()
        assert (gap.journal, gap.poisoned, gap.dropped) == ("boot.hand", 1, 0)
        assert job_ids(ledger) == {"1"}

    def test_is_reached_without_a_single_event(
        self, recorder: Recorder, journal: Journal, directory: Path, eventually: Any
    ) -> None:
        journal.open()
        recorder.ship()
        assert len(journal_files(directory)) == 1
        journal.close()
        ship_until_deleted(recorder, directory, eventually)

    def test_is_found_by_the_next_recorder_too(
        self, ledger: JobHistoryStore, journal: Journal, directory: Path, eventually: Any
    ) -> None:
        for number in range(10):
            journal.append(event("job", str(number)))
            Recorder(directory, ledger).ship()
        journal.close()
        ship_until_deleted(Recorder(directory, ledger), directory, eventually)
        assert texts(ledger, "job") == [str(number) for number in range(10)]


class TestPoison:
    GARBAGE = (
        b"garbage\n",
        b"\n",
        b"\xff\xfe\n",
        b"carriage\rreturn\n",
        b'{"kind":"started","job_id":"x"}\n',
        b'{"kind":"nonsense","job_id":"x","at":"2026-01-01T00:00:00Z"}\n',
        b'{"kind":"started","job_id":"x","at":"2026-01-01T00:00:00"}\n',
        b'{"kind":"started","job_id":"a\\u0000b","at":"2026-01-01T00:00:00Z"}\n',
        b'{"@unheard":1}\n',
        b"[" * 100_000 + b"\n",
        b"null\n",
    )

    def test_is_set_aside_with_its_place_and_holds_nothing_up(
        self, recorder: Recorder, ledger: JobHistoryStore, writer: HandWriter, sqlite_url: str
    ) -> None:
        places = []
        for number, garbage in enumerate(self.GARBAGE):
            writer.write(line(number))
            places.append((writer.path.stat().st_size, garbage))
            writer.write(garbage)
        writer.write(line("last"))
        ship_all(recorder)
        assert job_ids(ledger) == {*map(str, range(len(self.GARBAGE))), "last"}
        assert poison_of(ledger, sqlite_url) == places
        [gap] = ledger.recording_gaps()
        assert gap.poisoned == len(self.GARBAGE)

    def test_is_logged_with_its_journal_and_its_byte(
        self, recorder: Recorder, writer: HandWriter, caplog: pytest.LogCaptureFixture
    ) -> None:
        writer.write(line(1), b"garbage\n")
        ship_all(recorder)
        [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert f"Journal boot.hand, byte {len(line(1))}:" in record.getMessage()

    def test_that_only_the_database_refuses_costs_no_neighbour(
        self, open_store: Callable[[str], SqlJobHistoryStore], ledger_url: str, writer: HandWriter, directory: Path
    ) -> None:
        store = open_store(ledger_url)
        snapshot = Snapshot(sealed="x", digest="d", size=2**80, key_fingerprint="k")
        good = [line(number) for number in range(20)]
        bad = [line(f"bad{number}", snapshot=snapshot, facts=JobFacts(task="t")) for number in range(2)]
        writer.write(*good[:5], bad[0], *good[5:], bad[1])
        ship_all(Recorder(directory, store))
        assert job_ids(store) == set(map(str, range(20)))
        assert all(len(store.get_job_events(str(number))) == 1 for number in range(20))
        [gap] = store.recording_gaps()
        assert gap.poisoned == 2

    def test_of_a_file_that_is_none_does_not_stop_the_others(
        self, recorder: Recorder, ledger: JobHistoryStore, journal: Journal, directory: Path
    ) -> None:
        (directory / "a.directory.jsonl").mkdir()
        journal.append(event(1))
        ship_all(recorder)
        assert job_ids(ledger) == {"1"}
        assert "a.directory.jsonl" in str(recorder.obstacle())
        (directory / "a.directory.jsonl").rmdir()
        recorder.ship()
        assert recorder.obstacle() is None

    def test_a_journal_that_was_taken_away_is_forgotten(
        self, recorder: Recorder, ledger: JobHistoryStore, journal: Journal, writer: HandWriter
    ) -> None:
        writer.write(line(1))
        recorder.ship()
        writer.path.unlink()
        journal.append(event(2))
        ship_all(recorder)
        assert job_ids(ledger) == {"1", "2"}
        assert recorder.is_recorded({"boot.hand": 1_000})


class TestExactlyOnce:
    def test_two_recorders_on_one_directory_record_each_event_once(
        self, directory: Path, open_store: Callable[[str], SqlJobHistoryStore], ledger_url: str, eventually: Any
    ) -> None:
        stores = [open_store(ledger_url) for _ in range(2)]
        journals = [Journal(directory, f"boot{number}", segment=40_000) for number in range(3)]
        stop = threading.Event()
        failures: list[BaseException] = []

        def record(store: JobHistoryStore) -> None:
            recorder = Recorder(directory, store)
            try:
                while not stop.is_set() or journal_files(directory):
                    recorder.ship()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=record, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        for number in range(3_000):
            journals[number % 3].append(event(number % 11, str(number)))
        for journal in journals:
            journal.close()
        stop.set()
        for thread in threads:
            thread.join(60)
        assert failures == []
        recorded = [int(text or "") for job in range(11) for text in texts(stores[0], job)]
        assert [number for number, count in Counter(recorded).items() if count > 1] == []
        assert sorted(recorded) == list(range(3_000))
        assert stores[0].recording_gaps() == []

    def test_a_recorder_that_is_behind_learns_where_the_ledger_stands(
        self, ledger: JobHistoryStore, journal: Journal, directory: Path
    ) -> None:
        late, early = Recorder(directory, ledger), Recorder(directory, ledger)
        journal.append(event("job", "1"))
        ship_all(late)
        journal.append(event("job", "2"))
        ship_all(early)
        journal.append(event("job", "3"))
        late.ship()
        assert texts(ledger, "job") == ["1", "2"]
        ship_all(late)
        assert texts(ledger, "job") == ["1", "2", "3"]

    def test_a_ledger_that_was_set_back_gets_the_rest_again(
        self, recorder: Recorder, journal: Journal, directory: Path
    ) -> None:
        """As after a restored backup: what the journals still hold comes in once more."""
        journal.append(event("job", "1"))
        ship_all(recorder)
        fresh = MemoryJobHistoryStore()
        recorder._store = fresh
        journal.append(event("job", "2"))
        ship_all(recorder)
        ship_all(recorder)
        assert texts(fresh, "job") == ["1", "2"]


class TestWhatIsRecorded:
    def test_is_what_the_ledger_holds(self, recorder: Recorder, journal: Journal, directory: Path) -> None:
        journal.append(event(1))
        ends = journal_ends(directory, "boot")
        assert not recorder.is_recorded(ends)
        assert recorder.backlog() == sum(ends.values())
        ship_all(recorder)
        assert recorder.is_recorded(ends)
        assert recorder.backlog() == 0
        journal.append(event(2))
        assert recorder.is_recorded(ends)
        assert not recorder.is_recorded(journal_ends(directory, "boot"))

    def test_includes_what_was_deleted_and_what_is_empty(
        self, recorder: Recorder, journal: Journal, directory: Path, eventually: Any
    ) -> None:
        journal.append(event(1))
        ends = journal_ends(directory, "boot")
        journal.close()
        ship_until_deleted(recorder, directory, eventually)
        recorder.ship()
        assert recorder.is_recorded(ends)
        assert recorder.is_recorded({"boot.empty": 0})

    def test_excludes_a_journal_that_the_recorder_has_not_seen(
        self, recorder: Recorder, journal: Journal, directory: Path
    ) -> None:
        recorder.ship()
        journal.append(event(1))
        assert not recorder.is_recorded(journal_ends(directory, "boot"))

    def test_includes_a_torn_half_that_its_writer_cut_back(
        self, recorder: Recorder, writer: HandWriter, directory: Path
    ) -> None:
        writer.write(line(1), b"half")
        ends = journal_ends(directory, "boot")
        ship_all(recorder)
        assert not recorder.is_recorded(ends)
        os.truncate(writer.path, len(line(1)))
        assert recorder.is_recorded(ends)

    def test_counts_the_drops_of_all_files_of_a_process(
        self, recorder: Recorder, ledger: JobHistoryStore, directory: Path
    ) -> None:
        journal = Journal(directory, "boot", segment=1)
        for number in range(4):
            journal.append(event(number, "\ud83c"))
            journal.append(event(number))
        journal.append(event(9, "\ud83c"))
        journal.close()
        while journal_files(directory):
            recorder.ship()
        assert sum(gap.dropped for gap in ledger.recording_gaps()) == journal.dropped == 5

    def test_keeps_its_offset_with_its_batch(
        self, recorder: Recorder, ledger: JobHistoryStore, journal: Journal, directory: Path
    ) -> None:
        for number in range(5):
            journal.append(event(number))
        ends = journal_ends(directory, "boot")
        ship_all(recorder)
        assert ledger.journal_ends(list(ends)) == ends
        [(name, end)] = ends.items()
        assert not ledger.append([event("again")], JournalOffset(journal=name, start=0, end=end))


class TestALargeBacklog:
    def test_needs_little_memory(self, directory: Path, journal: Journal) -> None:
        update = msgspec.structs.replace(
            event("job"), kind=EventKind.PROGRESS, progress=Progress(done=1.0, text="x" * 900)
        )
        for _ in range(30_000):
            journal.append(update)
        assert sum(file.size() for file in journal_files(directory)) > 25 * 2**20
        recorder = Recorder(directory, MemoryJobHistoryStore())
        tracemalloc.start()
        ship_all(recorder)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert recorder.backlog() == 0
        assert peak < 12 * BATCH_BYTES

    def test_of_one_journal_does_not_keep_another_waiting(
        self, recorder: Recorder, ledger: JobHistoryStore, directory: Path, journal: Journal
    ) -> None:
        for number in range(3_000):
            journal.append(event("busy", "x" * 1_000 + str(number)))
        other = Journal(directory, "zzz", segment=SEGMENT)
        other.append(event("other"))
        while "other" not in job_ids(ledger):
            recorder.ship()
        assert len(texts(ledger, "busy")) < 3_000
        other.close()
