"""What the settings and the leader make of retention."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jobledger.controller.leader import Leader
from jobledger.controller.recovery import Recovery
from jobledger.controller.retention import LEASE_NAME, RetentionDuty, archive_path, policy_for, policy_of, prune
from jobledger.errors import ExportFailed, RetentionBusy, SettingsError
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.job import JobEnd, JobStatus
from jobledger.history.memory_store import MemoryJobHistoryStore
from jobledger.history.retention import KeptJobs
from jobledger.settings import Settings, load_settings

CANCELLED, COMPLETED, FAILED = JobStatus.CANCELLED, JobStatus.COMPLETED, JobStatus.FAILED
A_DAY = timedelta(days=1)


@pytest.fixture
def store() -> MemoryJobHistoryStore:
    return MemoryJobHistoryStore()


def add_ended(store: Any, job_id: str, days: float, status: JobStatus = COMPLETED) -> None:
    at = now() - timedelta(days=days)
    store.append([JobEvent(kind=EventKind.ENDED, job_id=job_id, at=at, end=JobEnd(status=status, at=at))])


def ids(store: Any) -> set[str]:
    return {entry.job_id for entry in store.list_jobs(limit=500)}


def work_to_the_end(duty: RetentionDuty, store: Any, eventually: Any) -> None:
    def is_done() -> bool:
        duty.work()
        return store.lease_holder(LEASE_NAME) is None

    eventually(is_done)


class TestPolicy:
    def test_the_defaults_are_ninety_days_and_a_million_jobs(self) -> None:
        policy = policy_of(Settings())
        assert policy.ages == dict.fromkeys((CANCELLED, COMPLETED, FAILED), 90 * A_DAY)
        assert policy.numbers == (KeptJobs((CANCELLED, COMPLETED, FAILED), 1_000_000),)
        assert (policy.rest, policy.cancels) == (90 * A_DAY, 7 * A_DAY)

    def test_single_statuses_can_differ(self) -> None:
        settings = Settings(
            retention_days=30,
            retention_days_by_status={"FAILED": 365, "CANCELLED": 0},
            retention_jobs=10,
            retention_jobs_by_status={"FAILED": 5},
        )
        policy = policy_of(settings)
        assert policy.ages == {COMPLETED: 30 * A_DAY, FAILED: 365 * A_DAY}
        assert policy.numbers == (KeptJobs((FAILED,), 5), KeptJobs((CANCELLED, COMPLETED), 10))

    def test_zero_keeps_for_ever(self) -> None:
        policy = policy_of(Settings(retention_days=0, retention_jobs=0))
        assert (policy.ages, policy.numbers, policy.rest) == ({}, (), None)

    def test_a_person_s_policy_is_about_the_jobs_that_he_names(self) -> None:
        policy = policy_for(Settings(), 2 * A_DAY, 7, [FAILED, JobStatus.RUNNING])
        assert (policy.ages, policy.numbers, policy.rest) == ({FAILED: 2 * A_DAY}, (KeptJobs((FAILED,), 7),), None)

    def test_statuses_are_read_from_the_environment_in_any_case(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JOBLEDGER_RETENTION_DAYS_BY_STATUS", "failed=365, Cancelled=7.5")
        monkeypatch.setenv("JOBLEDGER_RETENTION_JOBS_BY_STATUS", "COMPLETED=5")
        settings = load_settings()
        assert settings.retention_days_by_status == {"FAILED": 365, "CANCELLED": 7.5}
        assert settings.retention_jobs_by_status == {"COMPLETED": 5}

    @pytest.mark.parametrize("value", ["365", "running=3", "failed=-1", "failed=", "{}"])
    def test_a_wrong_one_is_refused_by_its_name(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("JOBLEDGER_RETENTION_DAYS_BY_STATUS", value)
        with pytest.raises(SettingsError, match="JOBLEDGER_RETENTION_DAYS_BY_STATUS"):
            load_settings()

    def test_the_settings_file_takes_a_table(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "jobledger.toml").write_text("retention_days_by_status = { failed = 365 }\n")
        monkeypatch.chdir(tmp_path)
        assert load_settings().retention_days_by_status == {"FAILED": 365}


class TestPrune:
    def test_it_tells_what_is_removed_and_gives_its_lease_back(self, store: MemoryJobHistoryStore) -> None:
        add_ended(store, "old", 100)
        add_ended(store, "failed", 100, FAILED)
        add_ended(store, "new", 1)
        told: list[int] = []

        removed = prune(store, policy_of(Settings()), progress=lambda counts: told.append(counts.total()))

        assert removed == {COMPLETED: 1, FAILED: 1}
        assert told[-1] == 2
        assert ids(store) == {"new"}
        assert store.lease_holder(LEASE_NAME) is None

    def test_it_refuses_while_another_process_removes_jobs(self, store: MemoryJobHistoryStore) -> None:
        add_ended(store, "old", 100)
        store.acquire_lease(LEASE_NAME, "another", 60)
        with pytest.raises(RetentionBusy):
            prune(store, policy_of(Settings()))
        assert ids(store) == {"old"}
        assert store.lease_holder(LEASE_NAME) == "another"

    def test_it_gives_its_lease_back_when_the_archive_fails(self, store: MemoryJobHistoryStore, tmp_path: Path) -> None:
        add_ended(store, "old", 100)
        with pytest.raises(ExportFailed):
            prune(store, policy_of(Settings()), tmp_path / "none" / "gone.jsonl")
        assert ids(store) == {"old"}
        assert store.lease_holder(LEASE_NAME) is None


class TestDuty:
    def test_it_removes_at_once_and_then_rests(self, store: MemoryJobHistoryStore, eventually: Any) -> None:
        add_ended(store, "old", 100)
        duty = RetentionDuty(store, Settings())
        work_to_the_end(duty, store, eventually)
        assert ids(store) == set()

        add_ended(store, "next", 100)
        duty.work()
        assert ids(store) == {"next"}

    def test_it_exports_first_where_the_settings_say_so(
        self, store: MemoryJobHistoryStore, tmp_path: Path, eventually: Any
    ) -> None:
        add_ended(store, "old", 100)
        settings = Settings(retention_export=tmp_path)
        work_to_the_end(RetentionDuty(store, settings), store, eventually)
        [file] = tmp_path.iterdir()
        assert file == archive_path(settings)
        assert [json.loads(line)["job_id"] for line in file.read_text().splitlines()] == ["old"]

    def test_it_leaves_no_empty_file_where_nothing_is_old(
        self, store: MemoryJobHistoryStore, tmp_path: Path, eventually: Any
    ) -> None:
        work_to_the_end(RetentionDuty(store, Settings(retention_export=tmp_path)), store, eventually)
        assert list(tmp_path.iterdir()) == []

    def test_it_removes_nothing_where_it_cannot_export(self, store: MemoryJobHistoryStore, tmp_path: Path) -> None:
        add_ended(store, "old", 100)
        duty = RetentionDuty(store, Settings(retention_export=tmp_path / "none"))
        with pytest.raises(ExportFailed, match="none"):
            duty.work()
        assert ids(store) == {"old"}
        assert store.lease_holder(LEASE_NAME) is None

    def test_it_waits_for_a_person_who_removes_jobs(self, store: MemoryJobHistoryStore) -> None:
        add_ended(store, "old", 100)
        store.acquire_lease(LEASE_NAME, "a person", 60)
        RetentionDuty(store, Settings()).work()
        assert ids(store) == {"old"}
        assert store.lease_holder(LEASE_NAME) == "a person"


def test_the_leader_removes_old_jobs_at_its_start(site: Any, eventually: Callable[..., Any]) -> None:
    add_ended(site.store, "old", 100)
    leader = Leader(site.controller, site.store, Recovery(site.store, site.controller.queues))
    eventually(lambda: leader.work_once() and site.store.get_job("old") is None)
