"""The commands export and prune, as a user meets them."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jobledger.controller.retention import LEASE_NAME
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.job import JobEnd, JobFacts, JobStatus
from jobledger.history.sql_store import SqlJobHistoryStore

PROGRAM = Path(sys.executable).with_name("jobledger")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def store(data_dir: Path) -> Iterator[SqlJobHistoryStore]:
    opened = SqlJobHistoryStore.open(f"sqlite:///{data_dir / 'ledger.db'}")
    yield opened
    opened.close()


@pytest.fixture
def environment(data_dir: Path) -> dict[str, str]:
    return {**os.environ, "JOBLEDGER_DATA_DIR": str(data_dir)}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    def run_it(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *words],
            env=environment | more,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run_it


def ended(job_id: str, days: float, status: JobStatus = JobStatus.COMPLETED, task: str = "shop.ship") -> list[JobEvent]:
    at = now() - timedelta(days=days)
    return [
        JobEvent(kind=EventKind.SUBMITTED, job_id=job_id, at=at, facts=JobFacts(task=task, queue="q")),
        JobEvent(kind=EventKind.ENDED, job_id=job_id, at=at, end=JobEnd(status=status, at=at)),
    ]


def add(store: SqlJobHistoryStore, *jobs: list[JobEvent]) -> None:
    store.append([event for job in jobs for event in job])


def ids(store: SqlJobHistoryStore) -> set[str]:
    return {entry.job_id for entry in store.list_jobs(limit=500)}


def done(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def refused(result: subprocess.CompletedProcess[str], code: int) -> str:
    assert result.returncode == code, result.stdout + result.stderr
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    return result.stderr


class TestExport:
    def test_standard_output_gets_a_line_for_each_job_that_fits(self, store: SqlJobHistoryStore, run: Run) -> None:
        add(store, ended("a", 3), ended("b", 2, JobStatus.FAILED), ended("c", 1, task="shop.bill"))
        lines = done(run("export", "--status", "completed", "--status", "failed", "--task", "shop.ship")).splitlines()
        assert [json.loads(line)["job_id"] for line in lines] == ["b", "a"]

    def test_a_files_ending_says_its_format(self, store: SqlJobHistoryStore, run: Run, tmp_path: Path) -> None:
        add(store, ended("a", 2), ended("b", 1))
        exported = run("export", "--output", "jobs.csv", "--events")
        assert done(exported) == ""
        assert exported.stderr == "Exported 2 jobs to jobs.csv.\n"
        rows = list(csv.DictReader(io.StringIO((tmp_path / "jobs.csv").read_text(), newline="")))
        assert [(row["job_id"], len(json.loads(row["events"]))) for row in rows] == [("b", 2), ("a", 2)]

        done(run("export", "-o", "jobs.parquet"))
        import pyarrow.parquet

        assert pyarrow.parquet.read_table(tmp_path / "jobs.parquet").num_rows == 2

    def test_an_existing_file_stays_without_force(self, store: SqlJobHistoryStore, run: Run, tmp_path: Path) -> None:
        add(store, ended("a", 1))
        (tmp_path / "jobs.jsonl").write_text("mine")
        assert "--force" in refused(run("export", "--output", "jobs.jsonl"), 1)
        assert (tmp_path / "jobs.jsonl").read_text() == "mine"
        done(run("export", "--output", "jobs.jsonl", "--force"))
        assert json.loads((tmp_path / "jobs.jsonl").read_text())["job_id"] == "a"

    def test_a_reader_that_has_enough_ends_it_quietly(
        self, store: SqlJobHistoryStore, environment: dict[str, str]
    ) -> None:
        add(store, *(ended(f"job-{number}", 1) for number in range(1_000)))
        pipe = subprocess.PIPE
        with subprocess.Popen([PROGRAM, "export"], env=environment, stdout=pipe, stderr=pipe) as exporting:
            assert exporting.stdout is not None
            assert exporting.stderr is not None
            exporting.stdout.readline()
            exporting.stdout.close()
            assert exporting.stderr.read() == b""
        assert exporting.returncode == 0

    def test_ctrl_c_leaves_no_half_file(
        self, store: SqlJobHistoryStore, environment: dict[str, str], tmp_path: Path, eventually: Any
    ) -> None:
        for start in range(0, 20_000, 2_000):
            add(store, *(ended(f"job-{number}", 1) for number in range(start, start + 2_000)))
        words = [str(PROGRAM), "export", "--events", "--output", str(tmp_path / "jobs.jsonl")]
        with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE) as exporting:
            eventually(lambda: any(part.stat().st_size for part in tmp_path.glob(".jobs.jsonl.*.part")))
            exporting.send_signal(signal.SIGINT)
        assert exporting.returncode == 130
        assert list(tmp_path.glob("*jobs.jsonl*")) == list(tmp_path.glob(".jobs.jsonl*")) == []

    def test_a_full_standard_output_is_one_sentence(
        self, store: SqlJobHistoryStore, environment: dict[str, str]
    ) -> None:
        add(store, ended("a", 1))
        with Path("/dev/full").open("wb") as full:
            failed = subprocess.run(
                [PROGRAM, "export"], env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert failed.returncode == 1
        assert failed.stderr == "jobledger: Standard output cannot be written: No space left on device.\n"


class TestPrune:
    def test_a_dry_run_says_what_would_go_and_changes_nothing(self, store: SqlJobHistoryStore, run: Run) -> None:
        add(store, ended("a", 100), ended("b", 95), ended("c", 99, JobStatus.FAILED), ended("d", 1))
        told = json.loads(done(run("prune", "--dry-run", "--json")))
        assert (told["dry_run"], told["jobs"]) == (True, 3)
        assert {status: share["jobs"] for status, share in told["statuses"].items()} == {"COMPLETED": 2, "FAILED": 1}
        assert told["statuses"]["COMPLETED"]["oldest"] < told["statuses"]["COMPLETED"]["newest"]
        assert "2 COMPLETED" in done(run("prune", "--dry-run"))
        assert len(ids(store)) == 4

    def test_where_nobody_can_be_asked_it_needs_a_yes(self, store: SqlJobHistoryStore, run: Run) -> None:
        add(store, ended("old", 100))
        assert "--yes" in refused(run("prune"), 2)
        assert ids(store) == {"old"}
        assert run("prune", "--yes").stderr == "Removed 1 jobs: 1 COMPLETED.\n"
        assert ids(store) == set()

    def test_flags_say_what_goes_instead_of_the_settings(self, store: SqlJobHistoryStore, run: Run) -> None:
        add(store, *(ended(f"done-{days}", days) for days in (1, 2, 3, 100)), ended("failed", 50, JobStatus.FAILED))
        told = json.loads(done(run("prune", "--keep", "2", "--status", "completed", "--yes", "--json")))
        assert told == {"dry_run": False, "jobs": 2, "statuses": {"COMPLETED": {"jobs": 2}}}
        assert ids(store) == {"done-1", "done-2", "failed"}
        done(run("prune", "--older-than", "36h", "--yes"))
        assert ids(store) == {"done-1"}

    def test_jobs_are_in_the_file_before_they_go(self, store: SqlJobHistoryStore, run: Run, tmp_path: Path) -> None:
        add(store, ended("old", 100))
        done(run("prune", "--export", "gone.jsonl", "--yes"))
        add(store, ended("older", 200))
        done(run("prune", "--yes", JOBLEDGER_RETENTION_EXPORT=str(tmp_path)))
        assert [json.loads(line)["job_id"] for line in (tmp_path / "gone.jsonl").read_text().splitlines()] == ["old"]
        [daily] = tmp_path.glob("removed-jobs-*.jsonl")
        assert json.loads(daily.read_text())["job_id"] == "older"

    def test_nothing_goes_when_the_file_cannot_be_written(self, store: SqlJobHistoryStore, run: Run) -> None:
        add(store, ended("old", 100))
        assert "cannot be written" in refused(run("prune", "--export", "none/gone.jsonl", "--yes"), 1)
        assert ids(store) == {"old"}

    @pytest.mark.parametrize(
        "words", [("--status", "failed"), ("--status", "queued", "--keep", "1"), ("--older-than", "soon")]
    )
    def test_what_makes_no_sense_is_refused(self, store: SqlJobHistoryStore, run: Run, words: tuple[str, ...]) -> None:
        add(store, ended("old", 100))
        refused(run("prune", "--yes", *words), 2)
        assert ids(store) == {"old"}

    def test_it_refuses_while_another_process_removes_jobs(self, store: SqlJobHistoryStore, run: Run) -> None:
        add(store, ended("old", 100))
        store.acquire_lease(LEASE_NAME, "the leader", 60)
        assert "Another process removes" in refused(run("prune", "--yes"), 1)
        assert ids(store) == {"old"}

    @pytest.mark.parametrize(("answer", "left"), [(b"n\n", {"old"}), (b"y\n", set())])
    def test_a_person_is_asked(
        self, store: SqlJobHistoryStore, environment: dict[str, str], answer: bytes, left: set[str]
    ) -> None:
        add(store, ended("old", 100))
        terminal, side = pty.openpty()
        with subprocess.Popen([PROGRAM, "prune"], env=environment, stdin=side, stdout=side, stderr=side):
            os.close(side)
            shown = b""
            while b"[y/N]" not in shown:
                shown += os.read(terminal, 1_000)
            os.write(terminal, answer)
        os.close(terminal)
        assert b"1 COMPLETED" in shown
        assert b"Remove 1 jobs" in shown
        assert ids(store) == left
