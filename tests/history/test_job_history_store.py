"""What every ledger must do: in memory, in an SQLite file, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobledger.errors import EventRefused
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.event_batch import LOG_LINES
from jobledger.history.fold import fold
from jobledger.history.job import (
    Evidence,
    FailureKind,
    JobEnd,
    JobFacts,
    JobHistoryEntry,
    JobStatus,
    Progress,
    Snapshot,
)
from jobledger.history.job_history_store import (
    PAGE_LIMIT,
    CancelIntent,
    JobFilter,
    JobHistoryStore,
    JobSubmission,
    JournalOffset,
    LeaseHold,
)
from jobledger.history.node import Node, NodeEnd

DAWN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
FACTS = JobFacts(
    task="tasks.render",
    queue="gpu",
    priority=3,
    payload_summary="a lighthouse",
    tags=("night", "große Serie"),
    group_id="group",
    retry_of="older",
    root_id="oldest",
    overrides='{"steps":30}',
    cancel_grace=2.5,
    snapshot_problem=None,
)
SNAPSHOT = Snapshot(sealed="gAAAAA", digest="d1", size=42, key_fingerprint="k1")
STRANGE_IDS = ["", "'; DROP TABLE jobs; --", "\x00", "a\x00b", "x" * 1_000_000, "\ud800", "%", "🙂" * 300]


def later(seconds: float) -> datetime:
    return DAWN + timedelta(seconds=seconds)


def submission(job_id: str = "job", seconds: float = 0, **facts: Any) -> JobSubmission:
    values = {"task": "tasks.render", "queue": "gpu"} | facts
    return JobSubmission(job_id=job_id, at=later(seconds), facts=JobFacts(**values))


def event(kind: EventKind, seconds: float = 0, job_id: str = "job", **fields: Any) -> JobEvent:
    return JobEvent(kind=kind, job_id=job_id, at=later(seconds), **fields)


def ended(status: JobStatus, job_id: str = "job", seconds: float = 9) -> JobEvent:
    return event(EventKind.ENDED, seconds, job_id, end=JobEnd(status=status, at=later(seconds)))


def known(store: JobHistoryStore, job_id: str = "job") -> JobHistoryEntry:
    entry = store.get_job(job_id)
    assert entry is not None
    return entry


def ids(entries: Iterable[JobHistoryEntry]) -> list[str]:
    return [entry.job_id for entry in entries]


def all_pages(store: JobHistoryStore, job_filter: JobFilter, limit: int) -> list[str]:
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = store.page_jobs(job_filter, cursor, limit)
        seen += ids(page.entries)
        cursor = page.next_cursor
        if cursor is None:
            return seen


def test_a_store_is_what_the_protocol_says(store: JobHistoryStore) -> None:
    assert isinstance(store, JobHistoryStore)
    store.check()


class TestRecording:
    def test_a_submission_can_be_read_back_at_once(self, store: JobHistoryStore) -> None:
        store.record_job_submission(JobSubmission(job_id="job", at=DAWN, facts=FACTS, snapshot=SNAPSHOT))
        entry = known(store)
        assert (entry.status, entry.created_at, entry.facts) == (JobStatus.QUEUED, DAWN, FACTS)
        assert store.get_snapshot("job") == SNAPSHOT
        [recorded] = store.get_job_events("job")
        assert recorded.event.kind is EventKind.SUBMITTED
        assert recorded.event.snapshot is None

    def test_a_second_submission_changes_nothing(self, store: JobHistoryStore) -> None:
        store.record_job_submission(JobSubmission(job_id="job", at=DAWN, facts=FACTS, snapshot=SNAPSHOT))
        before = (known(store), store.get_job_events("job"))
        other = Snapshot(sealed="other", digest="d2", size=1, key_fingerprint="k2")
        facts = JobFacts(task="zzz")
        store.record_job_submission(JobSubmission(job_id="job", at=later(-9), facts=facts, snapshot=other))
        assert (known(store), store.get_job_events("job")) == before
        assert store.get_snapshot("job") == SNAPSHOT

    def test_a_submission_twice_in_one_batch_counts_once(self, store: JobHistoryStore) -> None:
        submitted = event(EventKind.SUBMITTED, facts=FACTS)
        store.append([submitted, submitted])
        assert len(store.get_job_events("job")) == 1

    @pytest.mark.parametrize("status", list(JobStatus))
    def test_a_status_change_is_recorded(self, store: JobHistoryStore, status: JobStatus) -> None:
        store.record_job_submission(submission())
        store.record_status_change("job", status, later(5), "out of memory" if status == "FAILED" else None)
        entry = known(store)
        assert entry.status is status
        assert entry.completed_at == (later(5) if status.is_terminal else None)
        assert entry.last_error == ("out of memory" if status == "FAILED" else None)
        assert len(store.get_job_events("job")) == 2

    def test_a_status_change_of_an_unknown_id_makes_a_row_that_is_filled_in_later(self, store: JobHistoryStore) -> None:
        store.record_status_change("job", JobStatus.FAILED, later(5), "boom")
        assert known(store).task is None
        store.record_job_submission(submission())
        assert (known(store).task, known(store).status) == ("tasks.render", JobStatus.FAILED)

    def test_every_field_survives(self, store: JobHistoryStore) -> None:
        end = JobEnd(
            status=JobStatus.FAILED,
            at=later(9),
            requeue=1,
            retries=2,
            evidence=Evidence.DEATH,
            run_id="run",
            worker_id="celery@ends",
            detail="process 4711 killed",
            failure_kind=FailureKind.WORKER_LOST,
            error_type="WorkerLostError",
            error_message="gone",
            traceback="Traceback …",
            result_ref='{"images":0}',
            runtime=0.1 + 0.2,
            provisional=True,
        )
        run: dict[str, Any] = {
            "requeue": 1,
            "retries": 2,
            "run_id": "run",
            "worker_id": "celery@runs",
            "boot_id": "boot",
        }
        events = [
            event(EventKind.SUBMITTED, facts=FACTS),
            event(EventKind.PUBLISHED, 1),
            event(EventKind.DISPATCH_UNCERTAIN, 1),
            event(EventKind.RETRYING, 2, requeue=1, retries=1, text="busy", next_attempt_at=later(3)),
            event(EventKind.HANDED_OVER, 4, **run),
            event(EventKind.STARTED, 5, pid=4711, source="task_prerun", **run),
            event(EventKind.CANCEL_REQUESTED, 6, actor="ann", reason="wrong seed"),
            event(EventKind.CANCEL_DELIVERED, 7, text="a pool of threads"),
            event(EventKind.PROGRESS, 8, progress=Progress(done=1.5, total=4, text="stage 2")),
            event(EventKind.ENDED, 9, requeue=1, retries=2, end=end),
        ]
        expected: JobHistoryEntry | None = None
        for one in events:
            expected = fold(expected, one)
            store.append([one])
        assert known(store) == expected
        kept = [one for one in events if one.kind is not EventKind.PROGRESS]
        assert [recorded.event for recorded in store.get_job_events("job")] == kept

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_the_row_is_the_fold_of_the_events_however_they_are_batched(
        self, store: JobHistoryStore, histories: st.SearchStrategy[list[JobEvent]], data: st.DataObject
    ) -> None:
        events = [one for one in data.draw(histories) if one.kind is not EventKind.SUBMITTED]
        if not events:
            return
        job_id = f"job-{len(store.list_jobs(limit=PAGE_LIMIT))}-{data.draw(st.uuids())}"
        renamed = [msgspec.structs.replace(one, job_id=job_id) for one in events]
        cut = data.draw(st.integers(0, len(renamed)))
        store.append(renamed[:cut])
        store.append(renamed[cut:])
        expected: JobHistoryEntry | None = None
        for one in renamed:
            expected = fold(expected, one)
        entry = known(store, job_id)
        assert entry == expected
        assert job_id in ids(store.list_jobs(status=entry.status, limit=PAGE_LIMIT))

    def test_progress_updates_the_row_and_is_no_event(self, store: JobHistoryStore) -> None:
        store.append([event(EventKind.PROGRESS, 1, progress=Progress(done=1, total=2))])
        store.append([event(EventKind.PROGRESS, 2, progress=Progress(done=2, total=2))])
        assert known(store).progress == Progress(done=2, total=2)
        assert store.get_job_events("job") == []

    def test_log_lines_go_to_the_log_only(self, store: JobHistoryStore) -> None:
        store.append([event(EventKind.LOG, 1, text="first"), event(EventKind.LOG, 2, text="second")])
        assert [line.event.text for line in store.get_job_log("job")] == ["first", "second"]
        assert [line.event.text for line in store.get_job_log("job", limit=1)] == ["second"]
        assert store.get_job_log("job", limit=0) == []
        assert store.get_job_events("job") == []
        assert known(store).created_at == later(1)

    def test_a_log_keeps_its_newest_lines_and_leaves_other_logs_alone(self, store: JobHistoryStore) -> None:
        store.append([event(EventKind.LOG, job_id="other", text="mine")])
        lines = [event(EventKind.LOG, text=str(number)) for number in range(LOG_LINES + 300)]
        store.append(lines[:700])
        store.append(lines[700:])
        store.append([event(EventKind.LOG, text=str(number)) for number in range(2_000, 2_000 + LOG_LINES + 5)])
        kept = [line.event.text for line in store.get_job_log("job", limit=5_000)]
        assert kept == [str(number) for number in range(2_005, 2_005 + LOG_LINES)]
        assert len(store.get_job_log("other")) == 1

    @pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
    def test_the_snapshot_nearest_to_the_jobs_origin_is_kept(
        self, store: JobHistoryStore, order: tuple[int, ...]
    ) -> None:
        kinds = [EventKind.SUBMITTED, EventKind.PUBLISHING, EventKind.RECEIVED]
        events = [event(kind, facts=FACTS, snapshot=_snapshot(kind.value)) for kind in kinds]
        events.append(event(EventKind.PUBLISHING, retries=1, snapshot=_snapshot("a later attempt")))
        for place in order:
            store.append([events[place]])
        assert store.get_snapshot("job") == _snapshot("submitted")

    def test_the_first_of_two_equal_snapshots_is_kept(self, store: JobHistoryStore) -> None:
        store.append([event(EventKind.RECEIVED, snapshot=_snapshot("first"))])
        store.append([event(EventKind.RECEIVED, snapshot=_snapshot("second"))])
        assert store.get_snapshot("job") == _snapshot("first")

    @pytest.mark.parametrize(
        ("error", "readable"),
        [
            ("a\x00b", "a\ufffdb"),
            ("a\ud800b", "a?b"),
            ("\\u0000 \\\x00 ✓ 🙂", "\\u0000 \\\ufffd ✓ 🙂"),
        ],
    )
    def test_a_text_that_no_database_takes_is_recorded_readably(
        self, store: JobHistoryStore, error: str, readable: str
    ) -> None:
        store.record_status_change("job", JobStatus.FAILED, DAWN, error)
        assert known(store).last_error == readable
        [recorded] = store.get_job_events("job")
        assert recorded.event.end is not None
        assert recorded.event.end.error_message == readable

    @pytest.mark.parametrize("job_id", ["", "a\x00b", "x" * 256, "\ud800"])
    def test_an_event_with_an_impossible_id_is_refused_and_nothing_of_its_batch_is_kept(
        self, store: JobHistoryStore, job_id: str
    ) -> None:
        with pytest.raises(EventRefused, match="cannot be recorded"):
            store.append([event(EventKind.PUBLISHED), event(EventKind.PUBLISHED, job_id=job_id)])
        assert store.list_jobs() == []

    @pytest.mark.parametrize(
        "broken",
        [
            {"at": datetime(2026, 1, 1)},
            {"progress": Progress(done=float("nan"))},
            {"retries": 2**40},
            {"requeue": -1},
            {"facts": JobFacts(task="t" * 256)},
        ],
    )
    def test_an_event_that_breaks_its_types_is_refused(self, store: JobHistoryStore, broken: dict[str, Any]) -> None:
        with pytest.raises(EventRefused):
            store.append([JobEvent(**{"kind": EventKind.STARTED, "job_id": "job", "at": DAWN, **broken})])
        assert store.get_job("job") is None

    def test_threads_may_write_at_the_same_time(self, store: JobHistoryStore) -> None:
        def write(number: int) -> None:
            for step in range(10):
                store.append([event(EventKind.LOG, step, "job", text=f"{number}/{step}")])

        with ThreadPoolExecutor(max_workers=6) as pool:
            list(pool.map(write, range(6)))
        lines = [line.event.text for line in store.get_job_log("job")]
        assert sorted(map(str, lines)) == sorted(f"{number}/{step}" for number in range(6) for step in range(10))


class TestJournals:
    def test_a_batch_counts_only_at_its_own_place(self, store: JobHistoryStore) -> None:
        first, second = _part("j", 0, 100), _part("j", 100, 180)
        assert store.append([event(EventKind.PUBLISHED)], first)
        assert not store.append([event(EventKind.STARTED)], first)
        assert store.append([event(EventKind.STARTED)], second)
        assert not store.append([ended(JobStatus.FAILED)], _part("j", 0, 5))
        assert not store.append([ended(JobStatus.FAILED)], _part("j", 400, 500))
        assert not store.append([ended(JobStatus.FAILED)], _part("unknown", 7, 9))
        assert [recorded.event.kind for recorded in store.get_job_events("job")] == ["published", "started"]
        assert store.journal_ends(["j", "unknown"]) == {"j": 180}

    def test_a_refused_batch_does_not_move_the_journal(self, store: JobHistoryStore) -> None:
        with pytest.raises(EventRefused):
            store.append([event(EventKind.PUBLISHED, job_id="")], _part("j", 0, 100))
        assert store.journal_ends(["j"]) == {}

    def test_a_part_without_events_moves_the_journal(self, store: JobHistoryStore) -> None:
        assert store.append([], _part("j", 0, 10))
        assert store.journal_ends(["j"]) == {"j": 10}

    @pytest.mark.parametrize(("start", "end"), [(5, 4), (-1, 4)])
    def test_a_part_that_goes_backwards_is_an_error(self, start: int, end: int) -> None:
        with pytest.raises(ValueError, match="cannot go from byte"):
            _part("j", start, end)

    def test_gaps_name_what_was_dropped_and_what_nobody_can_read(self, store: JobHistoryStore) -> None:
        assert store.recording_gaps() == []
        store.append([], _part("full disk", 0, 10, dropped=7))
        store.append([], _part("full disk", 10, 20, dropped=3))
        store.append([], _part("fine", 0, 10))
        store.record_poison("poisoned", 0, b"\x00\xff{", "not JSON \x00")
        store.record_poison("poisoned", 0, b"again", "again")
        store.record_poison("poisoned", 9, b"{}", "no kind")
        gaps = [(gap.journal, gap.dropped, gap.poisoned) for gap in store.recording_gaps()]
        assert gaps == [("full disk", 7, 0), ("poisoned", 0, 2)]
        assert store.journal_ends(["poisoned"]) == {}


class TestLookUp:
    def test_an_unknown_id_is_none(self, store: JobHistoryStore) -> None:
        assert store.get_job("nobody") is None
        assert store.get_jobs(["nobody"]) == {}
        assert store.get_jobs([]) == {}
        assert store.get_job_events("nobody") == []
        assert store.get_job_log("nobody") == []
        assert store.get_snapshot("nobody") is None
        assert not store.has_cancel_intent("nobody")

    @pytest.mark.parametrize("job_id", STRANGE_IDS, ids=lambda job_id: ascii(job_id[:12]))
    def test_a_strange_id_is_just_unknown(self, store: JobHistoryStore, job_id: str) -> None:
        store.record_job_submission(submission())
        assert store.get_job(job_id) is None
        assert list(store.get_jobs([job_id, "job"])) == ["job"]
        assert store.get_job_events(job_id) == []
        assert store.get_job_log(job_id) == []
        assert store.get_snapshot(job_id) is None
        assert store.request_cancel(CancelIntent(job_id=job_id, requested_at=DAWN)) is None
        assert not store.has_cancel_intent(job_id)
        assert ids(store.list_jobs()) == ["job"]

    def test_an_id_of_sql_is_an_id_like_any_other(self, store: JobHistoryStore) -> None:
        job_id = "'; DROP TABLE jobs; --%_\"\n"
        store.record_job_submission(submission(job_id))
        assert known(store, job_id).job_id == job_id

    def test_many_jobs_are_found_at_once(self, store: JobHistoryStore) -> None:
        store.append([event(EventKind.PUBLISHED, job_id=f"job-{number}") for number in range(3_000)])
        wanted = [f"job-{number}" for number in range(0, 6_000, 2)]
        assert len(store.get_jobs(wanted)) == 1_500


class TestLists:
    @pytest.fixture
    def filled(self, store: JobHistoryStore) -> JobHistoryStore:
        for number in range(12):
            task, queue = f"tasks.{'ab'[number % 2]}", f"queue-{number % 3}"
            store.record_job_submission(submission(f"job-{number:02}", number // 2, task=task, queue=queue))
        store.append([event(EventKind.STARTED, 50, f"job-{number:02}") for number in (3, 4, 5)])
        store.append([ended(JobStatus.FAILED, f"job-{number:02}") for number in (5, 6, 7)])
        return store

    def test_the_newest_comes_first_and_ties_go_by_id(self, filled: JobHistoryStore) -> None:
        assert ids(filled.list_jobs()) == [f"job-{number:02}" for number in reversed(range(12))]

    def test_ids_sort_by_their_bytes_in_every_store(self, store: JobHistoryStore) -> None:
        names = ["a", "B", "a-1", "a1", "Z", "é", "_", "-"]
        store.append([event(EventKind.PUBLISHED, job_id=name) for name in names])
        assert ids(store.list_jobs()) == sorted(names, reverse=True)
        assert all_pages(store, JobFilter(), 3) == sorted(names, reverse=True)

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (JobStatus.RUNNING, ["job-04", "job-03"]),
            (JobStatus.FAILED, ["job-07", "job-06", "job-05"]),
            (JobStatus.CANCELLED, []),
        ],
    )
    def test_a_list_shows_one_status(self, filled: JobHistoryStore, status: JobStatus, expected: list[str]) -> None:
        assert ids(filled.list_jobs(status=status)) == expected

    @pytest.mark.parametrize(
        ("limit", "offset", "expected"),
        [
            (0, 0, []),
            (-1, 0, []),
            (2, 0, ["job-11", "job-10"]),
            (2, 3, ["job-08", "job-07"]),
            (3, 11, ["job-00"]),
            (3, 12, []),
            (3, 10**30, []),
            (1, -5, ["job-11"]),
        ],
    )
    def test_limit_and_offset(self, filled: JobHistoryStore, limit: int, offset: int, expected: list[str]) -> None:
        assert ids(filled.list_jobs(limit=limit, offset=offset)) == expected

    def test_a_huge_limit_is_clamped(self, store: JobHistoryStore) -> None:
        store.append([event(EventKind.PUBLISHED, job_id=f"job-{number}") for number in range(PAGE_LIMIT + 1)])
        assert len(store.list_jobs(limit=10**30)) == PAGE_LIMIT
        page = store.page_jobs(JobFilter(), limit=10**30)
        assert len(page.entries) == PAGE_LIMIT
        assert page.next_cursor is not None

    @pytest.mark.parametrize(
        ("job_filter", "expected"),
        [
            (JobFilter(), range(12)),
            (JobFilter(statuses=(JobStatus.QUEUED,)), [0, 1, 2, 8, 9, 10, 11]),
            (JobFilter(statuses=(JobStatus.RUNNING, JobStatus.FAILED)), [3, 4, 5, 6, 7]),
            (JobFilter(statuses=(JobStatus.RUNNING, JobStatus.RUNNING)), [3, 4]),
            (JobFilter(statuses=tuple(JobStatus)), range(12)),
            (JobFilter(task="tasks.a"), [0, 2, 4, 6, 8, 10]),
            (JobFilter(queue="queue-1"), [1, 4, 7, 10]),
            (JobFilter(task="tasks.a", queue="queue-1"), [4, 10]),
            (JobFilter(task="tasks.a", statuses=(JobStatus.FAILED,)), [6]),
            (JobFilter(queue="queue-1", statuses=(JobStatus.FAILED, JobStatus.RUNNING)), [4, 7]),
            (JobFilter(task="tasks.a", queue="queue-1", statuses=(JobStatus.QUEUED,)), [10]),
            (JobFilter(task="tasks.'\x00"), []),
            (JobFilter(queue="nowhere"), []),
        ],
    )
    @pytest.mark.parametrize("limit", [1, 2, 5, 100])
    def test_pages_show_every_matching_job_once(
        self, filled: JobHistoryStore, job_filter: JobFilter, expected: list[int], limit: int
    ) -> None:
        wanted = [f"job-{number:02}" for number in sorted(expected, reverse=True)]
        assert all_pages(filled, job_filter, limit) == wanted

    def test_pages_stay_stable_while_jobs_arrive(self, filled: JobHistoryStore) -> None:
        page = filled.page_jobs(JobFilter(), limit=5)
        filled.record_job_submission(submission("newer", 100))
        filled.record_job_submission(submission("job-11-tie", 5))
        following = filled.page_jobs(JobFilter(), page.next_cursor, limit=5)
        assert ids(page.entries) + ids(following.entries) == [f"job-{n:02}" for n in range(11, 1, -1)]

    def test_the_last_page_has_no_cursor(self, filled: JobHistoryStore) -> None:
        assert filled.page_jobs(JobFilter(), limit=12).next_cursor is None
        assert filled.page_jobs(JobFilter(), limit=0).entries == ()

    @pytest.mark.parametrize("cursor", ["", "x", "é", "AAAA", "a" * 5_000, "W10", "' OR 1=1", "\x00"])
    def test_a_cursor_that_no_page_gave_out_is_refused(self, store: JobHistoryStore, cursor: str) -> None:
        with pytest.raises(ValueError, match="not a cursor"):
            store.page_jobs(JobFilter(), cursor)

    def test_cursors_lead_through_ids_of_any_characters(self, store: JobHistoryStore) -> None:
        names = ["🙂" * 255, "é\n", "a/b+c", "  ", '"']
        store.append([event(EventKind.PUBLISHED, job_id=name) for name in names])
        assert all_pages(store, JobFilter(), 1) == sorted(names, reverse=True)


class TestCancel:
    @pytest.mark.parametrize("status", list(JobStatus))
    def test_an_intent_is_taken_only_while_the_job_has_not_ended(
        self, store: JobHistoryStore, status: JobStatus
    ) -> None:
        store.record_job_submission(submission())
        store.record_status_change("job", status, later(1))
        entry = store.request_cancel(CancelIntent(job_id="job", requested_at=later(2), actor="ann", reason="r"))
        assert entry is not None
        assert entry == known(store)
        assert entry.status is status
        assert store.has_cancel_intent("job") == (not status.is_terminal)
        assert entry.cancel_actor == (None if status.is_terminal else "ann")
        kinds = [recorded.event.kind for recorded in store.get_job_events("job")]
        assert (EventKind.CANCEL_REQUESTED in kinds) == (not status.is_terminal)

    def test_the_first_intent_stays(self, store: JobHistoryStore) -> None:
        store.record_job_submission(submission())
        first = CancelIntent(job_id="job", requested_at=later(2), actor="ann")
        store.request_cancel(first)
        entry = store.request_cancel(CancelIntent(job_id="job", requested_at=later(1), actor="bob"))
        assert entry is not None
        assert entry.cancel_actor == "ann"
        assert store.open_cancels() == [first]
        assert len(store.get_job_events("job")) == 2

    def test_open_cancels_are_those_whose_jobs_have_not_ended(self, store: JobHistoryStore) -> None:
        for number in range(4):
            store.record_job_submission(submission(f"job-{number}"))
            store.request_cancel(CancelIntent(job_id=f"job-{number}", requested_at=later(10 - number)))
        store.append([ended(JobStatus.CANCELLED, "job-2")])
        assert [intent.job_id for intent in store.open_cancels()] == ["job-3", "job-1", "job-0"]
        assert [intent.job_id for intent in store.open_cancels(limit=1)] == ["job-3"]
        assert store.open_cancels(limit=0) == []

    def test_the_deny_set_is_all_intents_since_a_moment(self, store: JobHistoryStore) -> None:
        for number in range(3):
            store.record_job_submission(submission(f"job-{number}"))
            store.request_cancel(CancelIntent(job_id=f"job-{number}", requested_at=later(number)))
        store.append([ended(JobStatus.CANCELLED, "job-2")])
        assert store.cancelled_ids_since(later(1)) == ["job-1", "job-2"]
        assert store.cancelled_ids_since(later(3)) == []

    def test_an_intent_with_unreadable_words_is_kept(self, store: JobHistoryStore) -> None:
        store.record_job_submission(submission())
        store.request_cancel(CancelIntent(job_id="job", requested_at=DAWN, actor="a\x00", reason="\ud800"))
        assert store.open_cancels() == [CancelIntent(job_id="job", requested_at=DAWN, actor="a\ufffd", reason="?")]


class TestNodes:
    def test_a_node_is_kept_as_it_is(self, store: JobHistoryStore) -> None:
        node = _node("boot", queues=("gpu", "cpu"), versions={"celery": "5.7"}, home="home", heartbeat=3)
        store.record_node(node)
        assert store.list_nodes() == [node]
        replaced = _node("boot", concurrency=9)
        store.record_node(replaced)
        assert store.list_nodes() == [replaced]

    def test_heartbeats_count_up(self, store: JobHistoryStore) -> None:
        for boot in ("a", "b"):
            store.record_node(_node(boot))
        store.record_heartbeats([], DAWN)
        store.record_heartbeats(["a", "a", "stranger"], later(1))
        store.record_heartbeats(["a", "b"], later(2))
        beats = {node.boot_id: (node.heartbeat, node.heartbeat_at) for node in store.list_nodes()}
        assert beats == {"a": (2, later(2)), "b": (1, later(2))}

    def test_the_first_end_of_a_node_stays(self, store: JobHistoryStore) -> None:
        store.record_node(_node("old"))
        store.record_node(_node("new", started_at=later(5)))
        store.end_node("old", NodeEnd.DIED, later(6))
        store.end_node("old", NodeEnd.STOPPED, later(7))
        store.end_node("stranger", NodeEnd.STOPPED, later(7))
        assert [node.boot_id for node in store.list_nodes()] == ["new"]
        new, old = store.list_nodes(include_ended=True)
        assert new.boot_id == "new"
        assert (old.ended_at, old.ended_how) == (later(6), NodeEnd.DIED)

    def test_unfinished_jobs_of_ended_nodes_are_found(self, store: JobHistoryStore) -> None:
        for boot in ("dead", "alive"):
            store.record_node(_node(boot))
        store.end_node("dead", NodeEnd.DIED, later(9))
        for number, (job_id, boot) in enumerate([("lost", "dead"), ("done", "dead"), ("runs", "alive")]):
            store.append([event(EventKind.STARTED, number, job_id, run_id="r1", boot_id=boot)])
        store.append([event(EventKind.HANDED_OVER, 0, "waits", run_id="r1", boot_id="dead")])
        store.append([event(EventKind.STARTED, 0, "moved", run_id="r1", boot_id="dead")])
        store.append([event(EventKind.STARTED, 5, "moved", run_id="r2", boot_id="alive")])
        store.append([ended(JobStatus.COMPLETED, "done")])
        assert ids(store.list_jobs_of_ended_nodes()) == ["lost", "waits"]
        assert ids(store.list_jobs_of_ended_nodes(limit=1)) == ["lost"]


class TestLeases:
    def test_only_one_holder_at_a_time(self, store: JobHistoryStore) -> None:
        assert store.acquire_lease("leader", "ann", 60) == 1
        assert store.acquire_lease("leader", "bob", 60) is None
        assert store.acquire_lease("leader", "ann", 60) == 1
        assert store.acquire_lease("other", "bob", 60) == 1

    def test_an_expired_lease_passes_on_with_a_greater_number(self, store: JobHistoryStore) -> None:
        assert store.acquire_lease("leader", "ann", 0) == 1
        assert store.acquire_lease("leader", "bob", 60) == 2
        assert store.acquire_lease("leader", "ann", 60) is None

    def test_the_number_rises_after_a_release_too(self, store: JobHistoryStore) -> None:
        numbers = [store.acquire_lease("leader", "ann", 60)]
        store.release_lease("leader", "bob")
        assert store.acquire_lease("leader", "bob", 60) is None
        for holder in ("bob", "bob", "ann"):
            store.release_lease("leader", "ann")
            store.release_lease("leader", "bob")
            numbers.append(store.acquire_lease("leader", holder, 60))
        assert all(before is not None and after == before + 1 for before, after in pairwise(numbers))

    def test_a_lease_says_who_holds_it_while_it_is_held(self, store: JobHistoryStore) -> None:
        assert store.lease_holder("leader") is None
        store.acquire_lease("leader", "ann", 60)
        store.acquire_lease("other", "bob", 0)
        assert store.lease_holder("leader") == "ann"
        assert store.lease_holder("other") is None
        store.release_lease("leader", "ann")
        assert store.lease_holder("leader") is None

    def test_releasing_what_nobody_holds_is_nothing(self, store: JobHistoryStore) -> None:
        store.release_lease("leader", "ann")
        assert store.acquire_lease("leader", "ann", 60) == 1


def _snapshot(digest: str) -> Snapshot:
    return Snapshot(sealed="sealed", digest=digest, size=1, key_fingerprint="k")


def _part(journal: str, start: int, end: int, dropped: int = 0) -> JournalOffset:
    return JournalOffset(journal=journal, start=start, end=end, dropped=dropped)


def _node(boot_id: str, **fields: Any) -> Node:
    values: dict[str, Any] = {
        "boot_id": boot_id,
        "name": "celery@host",
        "host": "host",
        "pid": 4711,
        "pool": "prefork",
        "concurrency": 2,
        "started_at": DAWN,
    }
    return Node(**(values | fields))


def test_a_submission_says_whether_its_id_is_new(store: JobHistoryStore) -> None:
    job = JobSubmission(job_id="once", at=DAWN, facts=JobFacts(task="tasks.a"))

    assert store.record_job_submission(job) is True
    assert store.record_job_submission(job) is False


def test_what_a_former_leader_still_writes_is_not_taken(store: JobHistoryStore) -> None:
    old = LeaseHold(name="leader", fence=store.acquire_lease("leader", "first", 10) or 0)
    store.release_lease("leader", "first")
    new = LeaseHold(name="leader", fence=store.acquire_lease("leader", "second", 10) or 0)
    event = JobEvent(kind=EventKind.PUBLISHED, job_id="job", at=DAWN)

    assert store.append([event], lease=old) is False
    assert store.get_job("job") is None
    assert store.append([event], lease=new) is True
    assert store.get_job("job") is not None


def test_only_boots_whose_end_is_recorded_count_as_ended(store: JobHistoryStore) -> None:
    for boot_id in ("living", "dead"):
        store.record_node(
            Node(boot_id=boot_id, name="n@h", host="h", pid=1, pool="solo", concurrency=1, started_at=DAWN)
        )
    store.end_node("dead", NodeEnd.DIED, DAWN)

    assert store.ended_boots(["living", "dead", "unheard of"]) == {"dead"}
    assert store.ended_boots([]) == set()
