"""The demo, as a user runs it: what it promises, and that nothing stays behind."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(sys.executable).with_name("jobledger")
PICTURES = Path(__file__).parents[2] / "examples" / "pictures"

pytestmark = pytest.mark.timeout(300)


def demo(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "demo", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture
def environment(data_dir: Path) -> dict[str, str]:
    """A machine with a temporary directory of its own, where everything of the demo is found."""
    return {**os.environ, "TMPDIR": str(data_dir)}


def processes_of(directory: Path) -> list[str]:
    """Return every process whose arguments or environment name the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if os.fsencode(directory) in text and state != "Z":
            found.append(f"{entry.name} {text[:200]!r}")
    return found


def test_the_demo_does_what_it_promises_and_leaves_only_its_pictures(
    environment: dict[str, str], data_dir: Path
) -> None:
    result = demo(environment)

    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    assert re.search(r"^31 jobs in [\d.]+ s: 28 COMPLETED, 1 FAILED, 2 CANCELLED\.$", result.stdout, re.MULTILINE)
    for evidence in (
        r"Cancelled while it waited: \S+: removed from the queue before any worker took it; it never started\.",
        r"Cancelled while it ran: \S+: after \d+ pictures it saw the cancel and stopped\.",
        r"Failed: \S+: PictureRefused: The picture '.*the-missing-picture.jpg' does not exist",
        r"Retried, when the picture was there: \S+: COMPLETED, with exactly the same arguments\.",
    ):
        assert re.search(evidence, result.stdout), result.stdout
    [place] = data_dir.iterdir()
    assert [entry.name for entry in place.iterdir()] == ["outputs"]
    assert len([path for path in place.rglob("*") if path.is_file()]) >= 28
    assert str(place / "outputs") in result.stdout
    assert processes_of(data_dir) == []


def test_more_urgent_jobs_started_first(environment: dict[str, str], tmp_path: Path) -> None:
    result = demo(environment, "--keep", str(tmp_path / "show"))

    assert result.returncode == 0, result.stdout + result.stderr
    shown = subprocess.run(
        [PROGRAM, "jobs", "--json", "--data-dir", str(tmp_path / "show")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    jobs = json.loads(shown.stdout)["jobs"]
    assert len(jobs) == 31
    completed = [job for job in jobs if job["status"] == "COMPLETED" and job["retry_of"] is None]
    starts = {
        level: [job["started_at"] for job in completed if job["priority_name"] == level] for level in ("high", "low")
    }
    assert max(starts["high"]) < min(starts["low"])
    assert processes_of(tmp_path / "show") == []
    refused = demo(environment, "--keep", str(tmp_path / "show"))
    assert (refused.returncode, refused.stdout.count("Submitted")) == (2, 0)
    assert "is not empty; name a new directory" in refused.stderr


def test_ones_own_pictures_are_only_read_and_a_damaged_one_is_told(environment: dict[str, str], tmp_path: Path) -> None:
    album = tmp_path / "my: pictures"
    shutil.copytree(PICTURES, album / "below" / "deeper")
    (album / "damaged.jpg").write_bytes(b"not a picture")
    before = _contents(album)

    result = demo(environment, "--pictures", str(album))

    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"One of your pictures could not be used: .*damaged", result.stdout)
    assert _contents(album) == before


def _contents(folder: Path) -> dict[str, tuple[str, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}


def test_the_demo_never_meets_what_is_set_on_this_machine(
    environment: dict[str, str], data_dir: Path, redis_url: str
) -> None:
    (data_dir / "jobledger.toml").write_text('broker_url = "redis://127.0.0.1:1/0"\n')
    busy = {
        "JOBLEDGER_BROKER_URL": "redis://127.0.0.1:1/0",
        "JOBLEDGER_HISTORY_URL": "postgresql+psycopg://127.0.0.1:1/none",
        "JOBLEDGER_JOB_ACTIONS_ENABLED": "false",
        "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
    }
    result = subprocess.run(
        [PROGRAM, "demo"],
        env={**environment, **busy},
        cwd=data_dir,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_running(
    environment: dict[str, str], data_dir: Path, tmp_path: Path, eventually: Any, number: signal.Signals
) -> None:
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        process = subprocess.Popen([PROGRAM, "demo"], env=environment, stdout=output, stderr=output)
    eventually(lambda: "RUNNING" in log.read_text(), 60, log.read_text)

    process.send_signal(number)

    assert process.wait(30) == 130
    assert "Traceback" not in log.read_text()
    eventually(lambda: not processes_of(data_dir), 10, lambda: str(processes_of(data_dir)))


def test_nothing_outlives_a_demo_that_is_killed(
    environment: dict[str, str], data_dir: Path, tmp_path: Path, eventually: Any
) -> None:
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        process = subprocess.Popen([PROGRAM, "demo"], env=environment, stdout=output, stderr=output)
    eventually(lambda: "RUNNING" in log.read_text(), 60, log.read_text)

    process.kill()
    process.wait()

    eventually(lambda: not processes_of(data_dir), 20, lambda: str(processes_of(data_dir)))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: folder / "nowhere", "is not a folder"),
        (lambda folder: folder, "holds no pictures"),
    ],
)
def test_a_folder_without_pictures_is_refused_before_anything_starts(
    environment: dict[str, str], tmp_path: Path, data_dir: Path, make: Callable[[Path], Path], told: str
) -> None:
    result = demo(environment, "--pictures", str(make(tmp_path)))
    assert result.returncode == 2
    assert told in result.stderr
    assert list(data_dir.iterdir()) == []
