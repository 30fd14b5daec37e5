"""The barrier opens when the ledger holds what was written, and only then."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from jobledger.history.barrier import wait_until_recorded
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.job_history_store import JobHistoryStore, JournalOffset
from jobledger.history.journal import Journal, journal_ends
from jobledger.history.recorder import Recorder


def soon(seconds: float = 0.2) -> float:
    return time.monotonic() + seconds


def advance(store: JobHistoryStore, journal: str, start: int, end: int) -> None:
    assert store.append([], JournalOffset(journal=journal, start=start, end=end))


def test_it_is_open_where_nothing_was_written(store: JobHistoryStore) -> None:
    assert wait_until_recorded(store, {}, soon())
    assert wait_until_recorded(store, {"empty": 0}, soon())


def test_it_is_open_when_every_journal_is_recorded_to_its_end(store: JobHistoryStore) -> None:
    advance(store, "a", 0, 100)
    advance(store, "b", 0, 50)
    assert wait_until_recorded(store, {"a": 100, "b": 20, "empty": 0}, soon())


@pytest.mark.parametrize("ends", [{"a": 101}, {"a": 100, "unknown": 1}, {"unknown": 1}])
def test_it_stays_shut_until_the_deadline_while_a_byte_is_missing(store: JobHistoryStore, ends: dict[str, int]) -> None:
    advance(store, "a", 0, 100)
    started = time.monotonic()
    assert not wait_until_recorded(store, ends, soon(0.1))
    assert time.monotonic() - started >= 0.1


def test_after_the_deadline_it_is_asked_once(store: JobHistoryStore) -> None:
    advance(store, "a", 0, 100)
    assert wait_until_recorded(store, {"a": 100}, time.monotonic() - 1)
    assert not wait_until_recorded(store, {"a": 101}, time.monotonic() - 1)


def test_it_opens_while_somebody_waits(store: JobHistoryStore) -> None:
    opened = []
    waiting = threading.Thread(target=lambda: opened.append(wait_until_recorded(store, {"a": 100}, soon(10))))
    waiting.start()
    advance(store, "a", 0, 60)
    waiting.join(0.1)
    assert waiting.is_alive()
    advance(store, "a", 60, 100)
    waiting.join(10)
    assert opened == [True]


def test_a_journal_that_was_recorded_and_deleted_holds_nothing_back(store: JobHistoryStore, tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    journal = Journal(directory, "boot", segment=2**20)
    journal.append(JobEvent(kind=EventKind.STARTED, job_id="job", at=now()))
    ends = journal_ends(directory, "boot")
    journal.close()
    assert not wait_until_recorded(store, ends, soon(0.05))
    recorder = Recorder(directory, store)
    while not recorder.boot_is_recorded("boot"):
        recorder.ship()
    assert list(directory.iterdir()) == []
    assert wait_until_recorded(store, ends, soon())
