"""Every filter and every search, over every ledger: its pages are the matching jobs, newest first, each once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobledger.history import sql_lists, sql_search
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.failure_group import failure_group_of
from jobledger.history.fold import fold
from jobledger.history.job import FailureKind, JobEnd, JobFacts, JobHistoryEntry, JobStatus
from jobledger.history.job_history_store import JobFilter, JobHistoryStore
from jobledger.history.job_search import document_of
from jobledger.history.memory_store import MemoryJobHistoryStore
from jobledger.history.sql_store import SqlJobHistoryStore

OpenStore = Callable[[str], SqlJobHistoryStore]

DAWN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
GROUP = "b0c91685b5c19759"
TEXTS = ["Render the Straße", "STRASSE 12", "100% of a_b", "naïve “quoted” café", "日本語のテスト", "", "Ab\\c'\"d"]
SEARCHES = ["strasse", "STRASSE render", "100%", "a_b", "“quoted”", "日本語", "boom", "%%%", "b\\c'\"", "of a_b"]
ERRORS = [None, "Boom: 100% full", "strasse closed"]

_NUMBERS = count()


def later(seconds: float) -> datetime:
    return DAWN + timedelta(seconds=seconds)


def all_pages(store: JobHistoryStore, wanted: JobFilter, limit: int) -> list[JobHistoryEntry]:
    entries: list[JobHistoryEntry] = []
    cursor: str | None = None
    for _ in range(10_000):
        page = store.page_jobs(wanted, cursor, limit)
        assert len(page.entries) <= limit
        entries += page.entries
        cursor = page.next_cursor
        if cursor is None:
            return entries
    pytest.fail("the pages have no end")


def index_everything(store: JobHistoryStore) -> None:
    while store.index_for_search():
        pass


# Every filter over any jobs

_facts = st.builds(
    JobFacts,
    task=st.sampled_from(["tasks.a", "tasks.b"]),
    queue=st.sampled_from([None, "q", ""]),
    payload_summary=st.sampled_from(TEXTS),
    tags=st.sampled_from([(), ("x",), ("x", "y"), ("100%",)]),
    metadata=st.sampled_from([(), (("k", "x"),), (("k", "x"), ("l", "boom"))]),
    group_id=st.sampled_from([None, None, "g", "h"]),
    root_id=st.sampled_from([None, None, "0", "1"]),
)
_moments = st.sampled_from([0, 0, 0.000001, 0.001, 0.1, 1, 1, 60, 3_600]).map(later)
_statuses = st.lists(st.sampled_from(JobStatus), max_size=3).map(tuple)
_filters = st.builds(
    JobFilter,
    statuses=_statuses,
    task=st.sampled_from([None, None, "tasks.a", "tasks.'"]),
    queue=st.sampled_from([None, None, "q", ""]),
    worker_id=st.sampled_from([None, None, "w1", "w2"]),
    tags=st.sampled_from([(), (), ("x",), ("y", "x"), ("z",)]),
    metadata=st.sampled_from([(), (), (("k", "x"),), (("l", "boom"), ("k", "x"))]),
    group_id=st.sampled_from([None, None, "g"]),
    root_id=st.sampled_from([None, None, "0", "nobody"]),
    failure_group=st.sampled_from([None, None, GROUP]),
    since=st.none() | _moments,
    until=st.none() | _moments,
    text=st.none() | st.sampled_from(SEARCHES),
)


@st.composite
def _events(draw: st.DrawFn, number: int) -> list[JobEvent]:
    job_id, at = str(number), draw(_moments)
    worker = draw(st.sampled_from(["w1", "w2", None]))
    events = [JobEvent(kind=EventKind.PUBLISHED, job_id=job_id, at=at, facts=draw(st.none() | _facts))]
    if draw(st.booleans()):
        events.append(JobEvent(kind=EventKind.STARTED, job_id=job_id, at=later(9), run_id="r", worker_id=worker))
    if draw(st.booleans()):
        events.append(JobEvent(kind=EventKind.ENDED, job_id=job_id, at=later(9), run_id="r", end=_end(draw, worker)))
    if draw(st.booleans()):
        events.append(JobEvent(kind=EventKind.RECEIVED, job_id=job_id, at=draw(_moments), facts=draw(_facts)))
    return events


def _end(draw: st.DrawFn, worker: str | None) -> JobEnd:
    status = draw(st.sampled_from([JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED]))
    error = draw(st.sampled_from(ERRORS)) if status is JobStatus.FAILED else None
    kind = FailureKind.EXCEPTION if status is JobStatus.FAILED else None
    return JobEnd(status=status, at=later(9), run_id="r", worker_id=worker, error_message=error, failure_kind=kind)


@st.composite
def _ledgers(draw: st.DrawFn) -> list[list[JobEvent]]:
    return [draw(_events(number)) for number in range(draw(st.integers(0, 12)))]


def matching(entries: Sequence[JobHistoryEntry], wanted: JobFilter) -> list[JobHistoryEntry]:
    """What a filter means, written down once more, one condition after the other."""
    found = [entry for entry in entries if _matches(entry, wanted)]
    return sorted(found, key=lambda entry: (entry.created_at, entry.job_id), reverse=True)


def _matches(entry: JobHistoryEntry, wanted: JobFilter) -> bool:
    facts = entry.facts
    group = failure_group_of(entry)
    words = wanted.text.casefold().split() if wanted.text else []
    return all(
        [
            not wanted.statuses or entry.status in wanted.statuses,
            wanted.task is None or (facts is not None and facts.task == wanted.task),
            wanted.queue is None or (facts is not None and facts.queue == wanted.queue),
            wanted.worker_id is None or entry.worker_id == wanted.worker_id,
            all(facts is not None and tag in facts.tags for tag in wanted.tags),
            all(facts is not None and item in facts.metadata for item in wanted.metadata),
            wanted.group_id is None or (facts is not None and facts.group_id == wanted.group_id),
            wanted.root_id is None or entry.job_id == wanted.root_id or (facts and facts.root_id == wanted.root_id),
            wanted.failure_group is None or (group is not None and group.fingerprint == wanted.failure_group),
            wanted.since is None or entry.created_at >= wanted.since,
            wanted.until is None or entry.created_at < wanted.until,
            all(word in document_of(entry) for word in words),
        ]
    )


@pytest.fixture(params=["bounds of real life", "bounds of a few jobs"])
def bounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much a page looks at: with small bounds most of them are partial."""
    if request.param == "bounds of a few jobs":
        monkeypatch.setattr(sql_lists, "SCAN_STEPS", (1, 2))
        monkeypatch.setattr(sql_search, "STEPS", (1, 2))


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(histories=_ledgers(), filters=st.lists(_filters, min_size=1, max_size=8), limit=st.integers(1, 5))
@pytest.mark.usefixtures("bounds")
def test_the_pages_of_any_filter_are_the_filtered_and_sorted_whole(
    store: JobHistoryStore, histories: list[list[JobEvent]], filters: list[JobFilter], limit: int
) -> None:
    number = next(_NUMBERS)
    entries = _recorded(store, histories, number)
    index_everything(store)
    for wanted in filters:
        moved = _moved_filter(wanted, number)
        expected = [entry.job_id for entry in matching(entries, moved)]
        found = all_pages(store, moved, limit)
        assert [entry.job_id for entry in found] == expected
        assert found == [store.get_job(job_id) for job_id in expected]


# A ledger is shared by all examples of a test, so each of them has ids, families and a day of its own.


def _recorded(store: JobHistoryStore, histories: list[list[JobEvent]], number: int) -> list[JobHistoryEntry]:
    entries = []
    for events in histories:
        entry: JobHistoryEntry | None = None
        for event in events:
            moved = _moved_event(event, number)
            store.append([moved])
            entry = fold(entry, moved)
        assert entry is not None
        entries.append(entry)
    return entries


def _moved_event(event: JobEvent, number: int) -> JobEvent:
    facts = event.facts
    if facts is not None and facts.root_id is not None:
        facts = msgspec.structs.replace(facts, root_id=f"{number}-{facts.root_id}")
    at = event.at + timedelta(days=number)
    return msgspec.structs.replace(event, job_id=f"{number}-{event.job_id}", at=at, facts=facts)


def _moved_filter(wanted: JobFilter, number: int) -> JobFilter:
    day = timedelta(days=number)
    return msgspec.structs.replace(
        wanted,
        root_id=None if wanted.root_id is None else f"{number}-{wanted.root_id}",
        since=(wanted.since or DAWN) + day,
        until=(wanted.until or later(80_000)) + day,
    )


# Searches


def submit(store: JobHistoryStore, job_id: str, summary: str, seconds: float = 0, **facts: Any) -> None:
    known = JobFacts(task="tasks.render", payload_summary=summary, **facts)
    store.append([JobEvent(kind=EventKind.PUBLISHED, job_id=job_id, at=later(seconds), facts=known)])


def found(store: JobHistoryStore, text: str, **others: Any) -> list[str]:
    return [entry.job_id for entry in all_pages(store, JobFilter(text=text, **others), 50)]


class TestSearch:
    def test_every_word_must_occur_somewhere_in_whatever_case(self, store: JobHistoryStore) -> None:
        submit(store, "a", "Blue Mountains", 1, tags=("holiday",), metadata=(("customer", "ACME-7"),))
        submit(store, "b", "blue sea", 2)
        index_everything(store)
        assert found(store, "BLUE") == ["b", "a"]
        assert found(store, "blue mount") == ["a"]
        assert found(store, "lida acme-7 tasks.rend") == ["a"]
        assert found(store, "customer") == []
        assert found(store, "blue desert") == []

    def test_an_error_is_found_by_its_text_and_its_type(self, store: JobHistoryStore) -> None:
        submit(store, "job", "render")
        end = JobEnd(status=JobStatus.FAILED, at=later(1), error_type="OutOfMemory", error_message="CUDA: 2 GiB short")
        store.append([JobEvent(kind=EventKind.ENDED, job_id="job", at=later(1), end=end)])
        index_everything(store)
        assert found(store, "outofmem cuda gib") == ["job"]
        assert found(store, "cuda", statuses=(JobStatus.COMPLETED,)) == []

    @pytest.mark.parametrize("text", ["", " ", "ab", "a b cd"])
    def test_a_search_for_less_than_three_characters_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="a word of at least 3 characters"):
            JobFilter(text=text)

    def test_a_short_word_beside_a_long_one_must_occur_too(self, store: JobHistoryStore) -> None:
        submit(store, "a", "out of memory", 1)
        submit(store, "b", "memory full", 2)
        index_everything(store)
        assert found(store, "out of memory") == ["a"]
        assert found(store, "me full") == ["b"]

    def test_a_text_that_no_database_takes_is_found_nowhere(self, store: JobHistoryStore) -> None:
        submit(store, "job", "plain")
        index_everything(store)
        assert found(store, "pla\x00in") == found(store, "\ud800\ud800\ud800") == []

    def test_a_job_whose_text_or_time_has_changed_is_found_by_the_new_one_only(self, store: JobHistoryStore) -> None:
        submit(store, "b", "second thing", 5)
        store.record_status_change("a", JobStatus.FAILED, later(9), "first error")
        index_everything(store)
        assert found(store, "first") == ["a"]
        submit(store, "a", "third thing", 1)
        store.record_status_change("a", JobStatus.COMPLETED, later(10))
        index_everything(store)
        assert found(store, "first") == []
        assert found(store, "thing") == ["b", "a"]

    def test_many_jobs_of_one_moment_are_found_once_each(self, store: JobHistoryStore) -> None:
        names = [f"{number:03}" for number in range(120)]
        for name in names[::-1]:
            submit(store, name, "same moment")
        index_everything(store)
        assert [entry.job_id for entry in all_pages(store, JobFilter(text="moment"), 7)] == names[::-1]


class TestIndexing:
    @pytest.fixture
    def sql_store(self, ledger_url: str, open_store: Any) -> SqlJobHistoryStore:
        opened: SqlJobHistoryStore = open_store(ledger_url)
        return opened

    def test_what_is_recorded_is_taken_up_once_in_bounded_parts(self, sql_store: SqlJobHistoryStore) -> None:
        for number in range(5):
            submit(sql_store, f"job-{number}", "some text")
        assert [sql_store.index_for_search(3) for _ in range(3)] == [3, 2, 0]
        assert len(found(sql_store, "some text")) == 5

    def test_an_event_that_changes_no_text_leaves_nothing_to_do(self, sql_store: SqlJobHistoryStore) -> None:
        submit(sql_store, "job", "some text")
        index_everything(sql_store)
        sql_store.record_status_change("job", JobStatus.RUNNING, later(1))
        sql_store.record_status_change("job", JobStatus.COMPLETED, later(2))
        assert sql_store.index_for_search() == 0

    def test_on_postgresql_one_indexes_at_a_time_and_nothing_is_missed(self, postgresql_url: str) -> None:
        """Two agents at once could each keep the other's older text."""
        from threading import Thread

        store = SqlJobHistoryStore.open(postgresql_url)
        others = [SqlJobHistoryStore.open(postgresql_url) for _ in range(3)]
        stop: list[bool] = []

        def index(each: SqlJobHistoryStore) -> None:
            while not stop:
                each.index_for_search(5)

        threads = [Thread(target=index, args=(other,)) for other in others]
        for thread in threads:
            thread.start()
        for number in range(60):
            submit(store, f"job-{number % 12}", "first text", number)
            store.record_status_change(f"job-{number % 12}", JobStatus.FAILED, later(99 + number), f"error {number:04}")
        stop.append(True)
        for thread in threads:
            thread.join()
        index_everything(store)
        for number in range(12):
            entry = store.get_job(f"job-{number}")
            assert entry is not None
            assert found(store, str(entry.last_error)) == [entry.job_id]
        for opened in (store, *others):
            opened.close()

    def test_memory_has_nothing_to_index(self) -> None:
        store = MemoryJobHistoryStore()
        submit(store, "job", "some text")
        assert store.index_for_search() == 0
        assert found(store, "some") == ["job"]


# Cursors and times


def test_pages_of_a_filter_stay_stable_while_jobs_arrive_and_change(store: JobHistoryStore) -> None:
    for number in range(9):
        submit(store, f"job-{number}", "render", number, tags=("x",))
    first = store.page_jobs(JobFilter(tags=("x",)), limit=4)
    submit(store, "job-9", "render", 99, tags=("x",))
    store.record_status_change("job-3", JobStatus.RUNNING, later(50))
    following = store.page_jobs(JobFilter(tags=("x",)), first.next_cursor, limit=9)
    assert [entry.job_id for entry in following.entries] == [f"job-{number}" for number in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize("cursor", ["", "x", "W10", "bnVsbA", "WzEsMl0", "é", "a" * 10_000])
def test_a_cursor_that_no_page_gave_out_is_refused_whatever_the_filter(store: JobHistoryStore, cursor: str) -> None:
    with pytest.raises(ValueError, match="not a cursor of this list"):
        store.page_jobs(JobFilter(text="render", tags=("x",)), cursor)


def test_a_time_without_its_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="offset from UTC"):
        JobFilter(since=datetime(2026, 1, 2))


def test_times_at_the_ends_of_all_time_filter_like_any_other(store: JobHistoryStore) -> None:
    submit(store, "job", "render")
    index_everything(store)
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert found(store, "render", since=first, until=last) == ["job"]
    assert found(store, "render", until=first) == found(store, "render", since=last) == []


@pytest.mark.parametrize("wanted", [JobFilter(task="a", queue="b"), JobFilter(tags=("x",), task="a")])
def test_jobs_that_arrive_in_the_middle_of_a_page_push_no_other_job_out_of_it(
    ledger_url: str, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, wanted: JobFilter
) -> None:
    monkeypatch.setattr(sql_lists, "SCAN_STEPS", (3, 5))
    store, sender = open_store(ledger_url), open_store(ledger_url)
    facts = JobFacts(task="a", queue="b", tags=("x",))
    numbers = count()

    def submit() -> None:
        number = next(numbers)
        sender.append([JobEvent(kind=EventKind.SUBMITTED, job_id=f"{number:03}", at=later(number), facts=facts)])

    for _ in range(30):
        submit()
    look = sql_lists._reach

    def look_and_submit(*arguments: Any) -> Any:
        place = look(*arguments)
        submit()
        return place

    monkeypatch.setattr(sql_lists, "_reach", look_and_submit)
    found = {entry.job_id for entry in all_pages(store, wanted, 4)}
    assert {f"{number:03}" for number in range(30)} <= found
