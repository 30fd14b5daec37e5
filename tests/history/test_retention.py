"""Retention: which jobs go, that all of them goes, and that nothing else does; in memory, SQLite and PostgreSQL."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from jobledger.errors import ExportFailed, RetentionBusy
from jobledger.history.archive import JobArchive
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.job import TERMINAL_STATUSES, JobEnd, JobFacts, JobHistoryEntry, JobStatus, Snapshot
from jobledger.history.job_history_store import (
    CancelIntent,
    JobFilter,
    JobHistoryStore,
    JobSubmission,
    JournalOffset,
    LeaseHold,
)
from jobledger.history.node import Node, NodeEnd
from jobledger.history.retention import BATCH, KeptJobs, Removal, RetentionPolicy, survey
from jobledger.history.schema import METADATA, job_statistics, pruned_jobs, totals
from jobledger.history.sql_store import SqlJobHistoryStore
from jobledger.history.sums import Tally
from sqlalchemy import Connection, create_engine, func, select, update

OpenStore = Callable[[str], SqlJobHistoryStore]

LEASE = "retention"
MOMENT = now()
ENDED = tuple(sorted(TERMINAL_STATUSES))
SNAPSHOT = Snapshot(sealed="gAAAAA", digest="d1", size=42, key_fingerprint="k1")
A_MONTH = RetentionPolicy(ages=dict.fromkeys(ENDED, timedelta(days=30)))


def days_ago(days: float) -> datetime:
    return MOMENT - timedelta(days=days)


def only(statuses: Sequence[JobStatus], kept: int) -> RetentionPolicy:
    return RetentionPolicy(numbers=(KeptJobs(tuple(statuses), kept),))


def submit(store: JobHistoryStore, job_id: str, days: float, **facts: Any) -> None:
    job = JobFacts(**{"task": "tasks.render", "queue": "gpu"} | facts)
    store.record_job_submission(JobSubmission(job_id=job_id, at=days_ago(days), facts=job, snapshot=SNAPSHOT))


def end(store: JobHistoryStore, job_id: str, days: float, status: JobStatus = JobStatus.COMPLETED, **end: Any) -> None:
    at = days_ago(days)
    ended = JobEnd(status=status, at=at, **end)
    store.append([JobEvent(kind=EventKind.ENDED, job_id=job_id, at=at, end=ended)])


def add_ended(
    store: JobHistoryStore, job_id: str, days: float, status: JobStatus = JobStatus.COMPLETED, **facts: Any
) -> None:
    submit(store, job_id, days, **facts)
    end(store, job_id, days, status)


def hold(store: JobHistoryStore, holder: str = "me") -> LeaseHold:
    fence = store.acquire_lease(LEASE, holder, 60)
    assert fence is not None
    return LeaseHold(name=LEASE, fence=fence)


def remove(store: JobHistoryStore, policy: RetentionPolicy, archive: JobArchive | None = None) -> Removal:
    removal = Removal(store, policy, MOMENT, archive)
    lease = hold(store)
    while removal.step(lease):
        pass
    return removal


def ids(store: JobHistoryStore) -> set[str]:
    found: set[str] = set()
    cursor: str | None = None
    while True:
        page = store.page_jobs(JobFilter(), cursor, 500)
        found |= {entry.job_id for entry in page.entries}
        if (cursor := page.next_cursor) is None:
            return found


def known(store: JobHistoryStore, job_id: str) -> JobHistoryEntry:
    entry = store.get_job(job_id)
    assert entry is not None
    return entry


class TestByAge:
    @pytest.mark.parametrize("status", ENDED)
    def test_a_job_goes_when_its_end_is_older_than_the_limit(self, store: JobHistoryStore, status: JobStatus) -> None:
        add_ended(store, "old", 31, status)
        add_ended(store, "new", 29, status)

        removal = remove(store, A_MONTH)

        assert ids(store) == {"new"}
        assert removal.removed == {status: 1}

    def test_the_end_counts_and_not_the_submission(self, store: JobHistoryStore) -> None:
        submit(store, "long", 100)
        end(store, "long", 1)
        remove(store, A_MONTH)
        assert ids(store) == {"long"}

    def test_an_active_job_never_goes(self, store: JobHistoryStore) -> None:
        submit(store, "queued", 1_000)
        submit(store, "running", 1_000)
        store.record_status_change("running", JobStatus.RUNNING, days_ago(999))
        remove(store, A_MONTH)
        remove(store, only(ENDED, 0))
        assert ids(store) == {"queued", "running"}

    def test_each_status_has_an_age_of_its_own_and_one_without_stays_for_ever(self, store: JobHistoryStore) -> None:
        for status in ENDED:
            add_ended(store, f"{status}-40", 40, status)
            add_ended(store, f"{status}-4000", 4_000, status)
        ages = {JobStatus.COMPLETED: timedelta(days=30), JobStatus.CANCELLED: timedelta(days=300)}

        remove(store, RetentionPolicy(ages=ages))

        assert ids(store) == {"FAILED-40", "FAILED-4000", "CANCELLED-40"}


class TestByNumber:
    def test_the_jobs_that_were_submitted_last_stay(self, store: JobHistoryStore) -> None:
        for number in range(10):
            add_ended(store, f"job-{number}", number, ENDED[number % 3])

        remove(store, only(ENDED, 4))

        assert ids(store) == {f"job-{number}" for number in range(4)}
        assert sum(store.counts().statuses.values()) == 4

    def test_a_status_with_a_number_of_its_own_is_counted_apart(self, store: JobHistoryStore) -> None:
        for number in range(6):
            add_ended(store, f"failed-{number}", number, JobStatus.FAILED)
            add_ended(store, f"done-{number}", number)
        others = (JobStatus.COMPLETED, JobStatus.CANCELLED)

        remove(store, RetentionPolicy(numbers=(KeptJobs((JobStatus.FAILED,), 5), KeptJobs(others, 2))))

        assert ids(store) == {"done-0", "done-1", *(f"failed-{number}" for number in range(5))}

    def test_a_job_goes_by_whichever_limit_comes_first(self, store: JobHistoryStore) -> None:
        for number in range(8):
            add_ended(store, f"job-{number}", number * 10)
        by_both = RetentionPolicy(ages=A_MONTH.ages, numbers=(KeptJobs(ENDED, 5),))

        remove(store, by_both)

        assert ids(store) == {"job-0", "job-1", "job-2", "job-3"}

    def test_more_jobs_than_one_transaction_takes_go_too(self, store: JobHistoryStore) -> None:
        store.append([_ended(f"job-{number:04}", number) for number in range(2 * BATCH + 50)])

        removal = remove(store, only(ENDED, 7))

        assert ids(store) == {f"job-{each:04}" for each in range(7)}
        assert removal.removed == {JobStatus.COMPLETED: 2 * BATCH + 43}


class TestWhatStays:
    def test_a_job_stays_while_a_retry_of_it_is_active(self, store: JobHistoryStore) -> None:
        add_ended(store, "first", 90)
        add_ended(store, "second", 80, retry_of="first", root_id="first")
        submit(store, "third", 70, retry_of="second", root_id="first")

        remove(store, A_MONTH)
        assert ids(store) == {"second", "third"}

        end(store, "third", 60)
        remove(store, A_MONTH)
        assert ids(store) == set()

    def test_a_cancelled_job_stays_as_long_as_the_brokers_deny_set_needs_its_intent(
        self, store: JobHistoryStore
    ) -> None:
        for days, job_id in ((6, "lately"), (8, "before")):
            submit(store, job_id, days)
            store.request_cancel(CancelIntent(job_id=job_id, requested_at=days_ago(days)))
            end(store, job_id, days, JobStatus.CANCELLED)

        remove(store, only(ENDED, 0))

        assert ids(store) == {"lately"}
        assert store.cancelled_ids_since(days_ago(7)) == ["lately"]

    def test_a_job_that_changed_since_it_was_looked_at_stays(self, store: JobHistoryStore) -> None:
        add_ended(store, "job", 90, JobStatus.FAILED)
        looked_at = known(store, "job")
        end(store, "job", 0.1, JobStatus.COMPLETED)

        assert store.remove_jobs([looked_at], hold(store)) == set()
        assert known(store, "job").status is JobStatus.COMPLETED

    def test_nothing_goes_when_somebody_else_has_taken_the_lease(self, store: JobHistoryStore) -> None:
        add_ended(store, "job", 90)
        mine = hold(store)
        store.release_lease(LEASE, "me")
        hold(store, "another")

        assert store.remove_jobs([known(store, "job")], mine) is None
        assert store.remove_rest(MOMENT, mine) is None
        with pytest.raises(RetentionBusy):
            Removal(store, A_MONTH, MOMENT).step(mine)
        assert ids(store) == {"job"}


class TestSurvey:
    def test_it_says_what_would_go_and_changes_nothing(self, store: JobHistoryStore) -> None:
        for days in (100, 50, 40, 20):
            add_ended(store, f"done-{days}", days)
        add_ended(store, "failed", 60, JobStatus.FAILED)
        submit(store, "retry", 1, retry_of="done-100", root_id="done-100")
        before = ids(store)

        shares = survey(store, A_MONTH, MOMENT)

        assert {status: (share.jobs, share.oldest, share.newest) for status, share in shares.items()} == {
            JobStatus.COMPLETED: (2, days_ago(50), days_ago(40)),
            JobStatus.FAILED: (1, days_ago(60), days_ago(60)),
        }
        assert ids(store) == before
        assert remove(store, A_MONTH).removed == {JobStatus.COMPLETED: 2, JobStatus.FAILED: 1}


class TestAfterwards:
    def test_nothing_of_a_job_is_left(self, store: JobHistoryStore) -> None:
        _add_job_with_everything(store)
        assert store.get_job_log("job")

        remove(store, A_MONTH)

        assert store.get_job("job") is None
        assert store.get_job_events("job") == store.get_job_log("job") == []
        assert store.get_snapshot("job") is None
        assert not store.has_cancel_intent("job")
        assert store.get_events_of_jobs(["job"]) == {}

    def test_late_events_of_a_removed_job_are_dropped_and_those_beside_them_are_not(
        self, store: JobHistoryStore
    ) -> None:
        add_ended(store, "job", 90)
        remove(store, A_MONTH)
        late = JobEvent(kind=EventKind.LOG, job_id="job", at=MOMENT, text="late")
        other = JobEvent(kind=EventKind.PUBLISHED, job_id="other", at=MOMENT)

        assert store.append([late, other, late], JournalOffset(journal="j", start=0, end=9))
        submit(store, "job", 0)

        assert ids(store) == {"other"}
        assert store.journal_ends(["j"]) == {"j": 9}
        assert store.get_job_log("job") == []

    def test_ended_nodes_and_journals_go_with_their_time_and_others_stay(self, store: JobHistoryStore) -> None:
        for name in ("ended", "living", "needed"):
            store.record_node(_node(name))
            store.append([], JournalOffset(journal=f"{name}.j", start=0, end=5))
        started = JobEvent(kind=EventKind.STARTED, job_id="job", at=days_ago(90), run_id="r", boot_id="needed")
        store.append([started])
        store.end_node("ended", NodeEnd.STOPPED, days_ago(90))
        store.end_node("needed", NodeEnd.DIED, days_ago(90))
        store.end_journal("ended.j")
        rest = RetentionPolicy(rest=timedelta(days=-1))

        remove(store, rest)

        assert {node.boot_id for node in store.list_nodes(include_ended=True)} == {"living", "needed"}
        assert store.journal_ends(["ended.j", "living.j"]) == {"living.j": 5}
        assert [entry.job_id for entry in store.list_jobs_of_ended_nodes()] == ["job"]

    def test_without_an_age_ended_nodes_and_journals_stay(self, store: JobHistoryStore) -> None:
        store.record_node(_node("ended"))
        store.end_node("ended", NodeEnd.STOPPED, days_ago(9_000))
        store.append([], JournalOffset(journal="j", start=0, end=5))
        store.end_journal("j")
        remove(store, RetentionPolicy())
        assert len(store.list_nodes(include_ended=True)) == len(store.journal_ends(["j"])) == 1


class TestInSql:
    def test_no_row_of_a_removed_job_is_left_in_any_table(self, ledger_url: str, open_store: OpenStore) -> None:
        store = open_store(ledger_url)
        _add_job_with_everything(store)
        remove(store, A_MONTH)
        while store.index_for_search():
            pass
        left = {name: count for name, count in row_counts(ledger_url).items() if count}
        assert left.keys() <= {pruned_jobs.name, totals.name, job_statistics.name, "failure_groups", "leases"}
        assert left[pruned_jobs.name] == 1
        assert set(store.counts().statuses.values()) == {0}

    def test_dropped_events_are_counted(self, ledger_url: str, open_store: OpenStore) -> None:
        store = open_store(ledger_url)
        add_ended(store, "job", 90)
        remove(store, A_MONTH)
        for _ in range(3):
            store.append([JobEvent(kind=EventKind.PUBLISHED, job_id="job", at=MOMENT)])
        assert total(ledger_url, Tally.EVENTS_AFTER_REMOVAL) == 3

    def test_a_removed_id_is_forgotten_after_its_time(self, ledger_url: str, open_store: OpenStore) -> None:
        store = open_store(ledger_url)
        add_ended(store, "job", 90)
        add_ended(store, "other", 91)
        remove(store, A_MONTH)
        with _connection(ledger_url) as connection:
            older = update(pruned_jobs).where(pruned_jobs.c.job_id == "job").values(removed_at=days_ago(7.1))
            connection.execute(older)

        remove(store, A_MONTH)
        submit(store, "job", 0)
        submit(store, "other", 0)

        assert ids(store) == {"job"}


class TestArchive:
    def test_each_removed_job_is_in_it_with_its_events_and_its_log_and_without_secrets(
        self, store: JobHistoryStore, tmp_path: Path
    ) -> None:
        _add_job_with_everything(store)
        with JobArchive(tmp_path / "gone.jsonl") as archive:
            remove(store, A_MONTH, archive)

        [job] = _lines(tmp_path / "gone.jsonl")
        assert (job["job_id"], job["status"], job["tags"]) == ("job", "CANCELLED", ["night"])
        assert [event["kind"] for event in job["events"]] == ["submitted", "cancel_requested", "ended"]
        assert [line["text"] for line in job["log"]] == ["password=[redacted]"]
        assert job["metadata"] == {"api_key": "[redacted]"}
        assert (tmp_path / "gone.jsonl").stat().st_mode & 0o777 == 0o600

    def test_nothing_is_removed_when_it_cannot_be_written_and_the_next_time_all_of_it_is_exported(
        self, store: JobHistoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(3):
            add_ended(store, f"job-{number}", 90)
        path = tmp_path / "gone.jsonl"

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with JobArchive(path) as archive, monkeypatch.context() as broken:
            broken.setattr(os, "fsync", full)
            with pytest.raises(ExportFailed, match="No space left"):
                remove(store, A_MONTH, archive)
        assert not path.exists()
        assert len(ids(store)) == 3

        with JobArchive(path) as archive:
            remove(store, A_MONTH, archive)
        assert [job["job_id"] for job in _lines(path)] == ["job-0", "job-1", "job-2"]
        assert ids(store) == set()

    def test_a_job_that_was_exported_and_then_not_removed_is_exported_again(
        self, store: JobHistoryStore, tmp_path: Path
    ) -> None:
        add_ended(store, "job", 90)
        with JobArchive(tmp_path / "gone.jsonl") as archive:
            archive.add(store, [known(store, "job")])
            remove(store, A_MONTH, archive)
        assert [job["job_id"] for job in _lines(tmp_path / "gone.jsonl")] == ["job", "job"]

    def test_a_line_that_a_crash_tore_is_cut_off_and_whole_ones_stay(
        self, store: JobHistoryStore, tmp_path: Path
    ) -> None:
        path = tmp_path / "gone.jsonl"
        path.write_bytes(b'{"job_id":"whole"}\n{"job_id":"to')
        add_ended(store, "job", 90)
        with JobArchive(path) as archive:
            remove(store, A_MONTH, archive)
        assert [job["job_id"] for job in _lines(path)] == ["whole", "job"]

    @pytest.mark.parametrize("content", [b"my thesis", b"\x7fELF", b'{"other":1}\n'])
    def test_a_file_that_is_no_archive_is_left_alone(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "thesis"
        path.write_bytes(content)
        with pytest.raises(ExportFailed, match="no export of removed jobs"):
            JobArchive(path)
        assert path.read_bytes() == content

    def test_two_processes_do_not_write_one_archive(self, tmp_path: Path) -> None:
        with JobArchive(tmp_path / "gone.jsonl"), pytest.raises(ExportFailed, match="another process"):
            JobArchive(tmp_path / "gone.jsonl")

    def test_a_device_is_no_archive(self) -> None:
        with pytest.raises(ExportFailed, match="/dev/null is no file"):
            JobArchive(Path("/dev/null"))

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ExportFailed, match=r"none/gone\.jsonl cannot be written: No such file or directory"):
            JobArchive(tmp_path / "none" / "gone.jsonl")

    def test_a_full_disk_removes_nothing_and_tears_no_line(self, store: JobHistoryStore, small_disk: Path) -> None:
        store.append([_ended(f"job-{number:04}", 90 * 24 * 60) for number in range(3 * BATCH)])
        with JobArchive(small_disk / "gone.jsonl") as archive, pytest.raises(ExportFailed, match="No space left"):
            remove(store, A_MONTH, archive)

        archived = {job["job_id"] for job in _lines(small_disk / "gone.jsonl")}
        assert len(archived) == BATCH
        assert ids(store) == {f"job-{number:04}" for number in range(3 * BATCH)} - archived


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that holds one batch and not a second one."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    mounted = subprocess.run(words, capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


def row_counts(url: str) -> dict[str, int]:
    with _connection(url) as connection:
        tables = METADATA.sorted_tables
        return {table.name: connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def total(url: str, name: str) -> int:
    with _connection(url) as connection:
        return int(connection.scalar(select(func.sum(totals.c["count"])).where(totals.c.name == name)) or 0)


@contextmanager
def _connection(url: str) -> Iterator[Connection]:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _add_job_with_everything(store: JobHistoryStore) -> None:
    facts = {"tags": ("night",), "metadata": (("api_key", "hunter2"),), "payload_summary": "a lighthouse"}
    submit(store, "job", 90, **facts)
    store.request_cancel(CancelIntent(job_id="job", requested_at=days_ago(89)))
    store.append([JobEvent(kind=EventKind.LOG, job_id="job", at=days_ago(89), text="password=hunter2")])
    end(store, "job", 88, JobStatus.CANCELLED)


def _ended(job_id: str, minutes: int) -> JobEvent:
    at = MOMENT - timedelta(minutes=minutes)
    return JobEvent(kind=EventKind.ENDED, job_id=job_id, at=at, end=JobEnd(status=JobStatus.COMPLETED, at=at))


def _node(boot_id: str) -> Node:
    return Node(
        boot_id=boot_id,
        name=f"celery@{boot_id}",
        host="host",
        home="home",
        pid=1,
        pool="prefork",
        concurrency=1,
        queues=("celery",),
        versions={},
        started_at=days_ago(100),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
