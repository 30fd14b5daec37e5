"""Lines that could not be recorded: kept with their reason, and recorded exactly once when they can be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from jobledger.errors import EventRefused
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.job import JobEnd, JobStatus
from jobledger.history.job_history_store import JobHistoryStore, JournalOffset
from jobledger.history.poison import PoisonPlace, poison_lines, read_line, replay


def line(job_id: str, **fields: object) -> bytes:
    event = JobEvent(kind=EventKind.STARTED, job_id=job_id, at=now(), **fields)  # type: ignore[arg-type]
    return msgspec.json.encode(event) + b"\n"


def places(store: JobHistoryStore) -> list[tuple[str, int]]:
    return [(found.place.journal, found.place.offset) for found in poison_lines(store)]


class TestKeeping:
    def test_goes_by_place_in_pages_of_any_size(self, store: JobHistoryStore) -> None:
        for number in range(230):
            store.record_poison(f"journal-{number % 2}", 1_000 - number, b"{\n", f"reason {number}")
        assert places(store) == sorted(places(store))
        assert len(places(store)) == 230
        first = store.list_poison(None, 1)
        assert [tuple(found.place) for found in store.list_poison(first[0].place, 2)] == places(store)[1:3]
        assert store.list_poison(None, 0) == []

    def test_shows_the_newest_first(self, store: JobHistoryStore) -> None:
        store.record_poison("01.a", 900, b"{\n", "old")
        store.record_poison("02.a", 1, b"{\n", "new")
        store.record_poison("02.a", 2, b"[\n", "newest")
        assert [found.reason for found in store.newest_poison(2)] == ["newest", "new"]

    def test_gives_one_line_back_byte_by_byte(self, store: JobHistoryStore) -> None:
        store.record_poison("journal", 7, b"\x00\xff{", "not JSON")
        found = store.get_poison(PoisonPlace("journal", 7))
        assert found is not None
        assert (found.line, found.reason, str(found.place)) == (b"\x00\xff{", "not JSON", "journal:7")
        assert store.get_poison(PoisonPlace("journal", 8)) is None
        assert store.get_poison(PoisonPlace("other", 7)) is None

    @pytest.mark.parametrize("text", ["", "journal", "journal:", ":5", "journal:x", "journal:-1"])
    def test_knows_what_is_no_id(self, text: str) -> None:
        with pytest.raises(ValueError, match="is no id of a journal line"):
            PoisonPlace.parse(text)

    def test_reads_an_id_back(self) -> None:
        assert PoisonPlace.parse("boot.journal:1234") == ("boot.journal", 1234)


class TestReplay:
    def test_records_what_can_be_read_now_and_removes_it(self, store: JobHistoryStore) -> None:
        store.record_poison("journal", 0, line("good"), "an older version did not know this")
        store.record_poison("journal", 90, b"garbage\n", "first reason")
        outcomes = {outcome.line.offset: outcome.obstacle for outcome in replay(store)}
        assert outcomes[0] is None
        assert outcomes[90] is not None
        assert store.get_job("good") is not None
        assert len(store.get_job_events("good")) == 1
        assert places(store) == [("journal", 90)]
        assert store.get_poison(PoisonPlace("journal", 90)).reason == outcomes[90] != "first reason"  # type: ignore[union-attr]

    def test_changes_nothing_when_it_is_dry(self, store: JobHistoryStore) -> None:
        store.record_poison("journal", 0, line("good"), "why")
        store.record_poison("journal", 90, b"garbage\n", "first reason")
        assert [outcome.obstacle is None for outcome in replay(store, dry_run=True)] == [True, False]
        assert store.get_job("good") is None
        assert [found.reason for found in poison_lines(store)] == ["why", "first reason"]

    def test_of_two_at_once_records_once(self, store: JobHistoryStore) -> None:
        for number in range(60):
            store.record_poison("journal", number, line("job", text=str(number)), "why")
        with ThreadPoolExecutor(4) as threads:
            outcomes = list(threads.map(lambda _: list(replay(store)), range(4)))
        assert sum(map(len, outcomes)) == 60
        texts = [recorded.event.text for recorded in store.get_job_events("job")]
        assert sorted(texts, key=lambda text: int(text or -1)) == [str(number) for number in range(60)]
        assert places(store) == []

    def test_keeps_a_line_that_the_ledger_refuses(self, store: JobHistoryStore) -> None:
        with pytest.raises(EventRefused):
            store.release_poison(PoisonPlace("journal", 0), JobEvent(kind=EventKind.LOG, job_id="x" * 999, at=now()))
        store.record_poison("journal", 0, line("x" * 999), "too long")
        [outcome] = replay(store)
        assert outcome.obstacle is not None
        assert places(store) == [("journal", 0)]

    def test_goes_on_behind_a_line_that_breaks_the_recording(self, store: JobHistoryStore) -> None:
        # So long a run has no place in the statistics.
        end = JobEnd(status=JobStatus.COMPLETED, at=now(), runtime=1e308)
        store.record_poison("journal", 0, line("endless", end=end), "why")
        store.record_poison("journal", 90, line("good"), "why")
        assert [outcome.obstacle is None for outcome in replay(store)] == [False, True]
        assert store.get_job("good") is not None
        assert places(store) == [("journal", 0)]

    def test_counts_the_drops_that_a_control_line_tells(self, store: JobHistoryStore) -> None:
        store.append([], JournalOffset(journal="journal", start=0, end=10, dropped=2))
        store.record_poison("journal", 0, b'{"@dropped":5}\n', "why")
        store.record_poison("journal", 5, b'{"@dropped":1}\n', "why")
        assert [outcome.obstacle for outcome in replay(store)] == [None, None]
        [gap] = store.recording_gaps()
        assert (gap.dropped, gap.poisoned) == (5, 0)

    def test_says_that_a_torn_line_is_torn(self) -> None:
        with pytest.raises(ValueError, match="died in the middle"):
            read_line(b'{"kind":"started"')
