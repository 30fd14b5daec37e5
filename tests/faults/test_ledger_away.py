"""The ledger read-only, locked or on a full disk: jobs run on, and nothing is missing but what is counted."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobledger.history.event import EventKind
from jobledger.history.job import JobStatus

PUBLISH = """
import jobs, sys
for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else {count}):
    print(jobs.app.tasks["jobs.note"].delay({truth!r}, str(number)).id)
"""


def publish_plainly(site: Any, truth: Path, count: int, **environment: str) -> list[str]:
    """Send jobs as any Celery program does; the controller itself would wait for its ledger."""
    code = PUBLISH.format(count=count, truth=str(truth))
    ids: list[str] = site.run_python(code, **environment).split()
    return ids


def lines(truth: Path) -> int:
    return len(truth.read_text().split()) if truth.exists() else 0


def test_jobs_run_on_while_another_process_locks_the_ledger_for_thirty_seconds(
    site: Any, eventually: Any, tmp_path: Path
) -> None:
    truth = tmp_path / "truth"
    site.start_worker()
    first = publish_plainly(site, truth, 20)
    eventually(lambda: all(site.status(job) is JobStatus.COMPLETED for job in first))
    locker = subprocess.Popen(
        ["python3", "-c", LOCK, str(site.data_dir / "ledger.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert locker.stdout is not None
    assert locker.stdout.readline() == b"locked\n"

    jobs = publish_plainly(site, truth, 300)

    eventually(lambda: lines(truth) == 320, 20, "the jobs did not run on")
    assert locker.poll() is None
    assert all(site.status(job) is None for job in jobs)
    locker.communicate(timeout=60)
    eventually(lambda: all(site.status(job) is JobStatus.COMPLETED for job in jobs), 30)
    assert site.store.recording_gaps() == []


LOCK = """
import sqlite3, sys, time
ledger = sqlite3.connect(sys.argv[1], isolation_level=None)
ledger.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(30)
"""


def test_jobs_run_on_while_the_ledger_refuses_to_be_written(site: Any, eventually: Any, tmp_path: Path) -> None:
    """Root may write a read-only file; a trigger that refuses every write stands for it."""
    truth = tmp_path / "truth"
    site.start_worker()
    site.wait_for_end(site.controller.submit("jobs.add", [1, 1]))
    with sqlite3.connect(site.data_dir / "ledger.db") as ledger:
        ledger.execute("CREATE TRIGGER read_only BEFORE UPDATE ON journals BEGIN SELECT RAISE(ABORT, 'readonly'); END")
        ledger.execute("CREATE TRIGGER read_only2 BEFORE INSERT ON journals BEGIN SELECT RAISE(ABORT, 'readonly'); END")

    jobs = publish_plainly(site, truth, 50)

    eventually(lambda: lines(truth) == 50)
    assert all(site.status(job) is None for job in jobs)
    with sqlite3.connect(site.data_dir / "ledger.db") as ledger:
        ledger.execute("DROP TRIGGER read_only")
        ledger.execute("DROP TRIGGER read_only2")
    eventually(lambda: all(site.status(job) is JobStatus.COMPLETED for job in jobs), 20)
    assert site.store.recording_gaps() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        if os.environ.get("CI"):
            pytest.fail("CI must be able to mount a small disk")
        pytest.skip("a small disk can only be mounted by root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_job_whose_sender_cannot_write_is_recorded_by_the_worker_that_takes_it(site: Any, tmp_path: Path) -> None:
    (tmp_path / "no-directory").touch()
    site.start_worker()

    [job_id] = publish_plainly(site, tmp_path / "truth", 1, JOBLEDGER_DATA_DIR=str(tmp_path / "no-directory"))

    entry = site.wait_for_end(job_id)
    assert (entry.status, entry.task) == (JobStatus.COMPLETED, "jobs.note")
    assert site.kinds(job_id)[0] is EventKind.RECEIVED


def write_without_end(descriptor: int) -> None:
    while True:
        os.write(descriptor, b"x" * 65_536)


def fill(filler: Path) -> None:
    """Write until nothing more fits, to the last byte."""
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError, match="No space left"):
            write_without_end(descriptor)
    finally:
        os.close(descriptor)


def test_jobs_run_on_while_the_disk_is_full_and_the_gap_is_counted(
    small_disk: Path, data_dir: Path, redis_url: str, make_site: Any, eventually: Any, tmp_path: Path
) -> None:
    """Journals on a full disk, the ledger on another: what cannot be written is dropped, counted and shown."""
    site = make_site(small_disk / "data", f"sqlite:///{data_dir / 'ledger.db'}")
    truth = tmp_path / "truth"
    site.start_worker()
    before = publish_plainly(site, truth, 20)
    eventually(lambda: all(site.status(job) is JobStatus.COMPLETED for job in before))
    filler = small_disk / "filler"
    fill(filler)

    during = publish_plainly(site, truth, 500)

    eventually(lambda: lines(truth) == 520, 20, "the jobs did not run on")
    filler.unlink()
    after = publish_plainly(site, truth, 20)
    eventually(lambda: all(site.status(job) is JobStatus.COMPLETED for job in after), 20)
    missing = [job for job in during if site.status(job) is not JobStatus.COMPLETED]
    assert missing, "the disk was not full"
    eventually(site.store.recording_gaps)
    assert sum(gap.dropped for gap in site.store.recording_gaps()) > 0
    assert all(gap.poisoned == 0 for gap in site.store.recording_gaps())
