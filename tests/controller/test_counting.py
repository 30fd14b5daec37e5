"""What the command line and the service say about all jobs together: statistics, and groups of failures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from jobledger.controller.cli.period import beginning
from jobledger.controller.doctor import examine
from jobledger.controller.job_history_service import JobHistoryService
from jobledger.errors import InvalidJob
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.job import FailureKind, JobEnd, JobFacts, JobStatus
from jobledger.history.sql_store import SqlJobHistoryStore
from jobledger.settings import load_settings

PROGRAM = Path(sys.executable).with_name("jobledger")
NOW = datetime.now(UTC)
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(data_dir: Path) -> Run:
    """Run the program on a ledger alone: without a broker, a worker, or an application."""

    def run_it(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "JOBLEDGER_DATA_DIR": str(data_dir), **more}
        return subprocess.run([PROGRAM, *words], env=environment, capture_output=True, text=True, check=False)

    return run_it


@pytest.fixture
def ledger(data_dir: Path) -> SqlJobHistoryStore:
    """The ledger of that installation, with some jobs of the last minutes."""
    now = datetime.now(UTC)
    store = SqlJobHistoryStore.open(load_settings(data_dir=data_dir).ledger_url)
    for number in range(8):
        store.append(_job(f"good-{number}", "shop.ship", now - timedelta(minutes=20), JobStatus.COMPLETED))
    for number in range(2):
        at = now - timedelta(minutes=10 - number)
        store.append(_job(f"bad-{number}", "shop.ship", at, JobStatus.FAILED, f"ValueError: order {number} is gone"))
    store.append(_job("bill", "shop.bill", now - timedelta(days=3), JobStatus.FAILED, "KeyError: 'price'", "other"))
    store.close()
    return store


def _job(
    job_id: str, task: str, at: datetime, status: JobStatus, message: str | None = None, queue: str = "main"
) -> list[JobEvent]:
    start, stop = at + timedelta(seconds=0.02), at + timedelta(seconds=2.02)
    error_type = message.partition(":")[0] if message else None
    kind = FailureKind.EXCEPTION if message else None
    end = JobEnd(status=status, at=stop, runtime=2.0, error_type=error_type, error_message=message, failure_kind=kind)
    return [
        JobEvent(kind=EventKind.SUBMITTED, job_id=job_id, at=at, facts=JobFacts(task=task, queue=queue)),
        JobEvent(kind=EventKind.STARTED, job_id=job_id, at=start, run_id="run"),
        JobEvent(kind=EventKind.ENDED, job_id=job_id, at=stop, run_id="run", end=end),
    ]


def data(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


# Statistics


def test_stats_tell_each_task_and_all_of_them(run: Run, ledger: SqlJobHistoryStore) -> None:
    result = run("stats")

    assert result.returncode == 0, result.stderr
    times = r"\d\d ms / \d\d ms / \d\d ms +[12]\.\d s / [12]\.\d s / [12]\.\d s"
    assert re.search(rf"^shop.ship +10 +8 +2 \(20.0%\) +0 +{times}$", result.stdout, re.MULTILINE), result.stdout
    assert re.search(rf"^all +10 +8 +2 \(20.0%\) +0 +{times}$", result.stdout, re.MULTILINE), result.stdout
    assert "shop.bill" not in result.stdout
    assert re.search(r"^COMPLETED +█ +at most 8 in 2 minutes$", result.stdout, re.MULTILINE), result.stdout
    assert re.search(r"^FAILED +\S.* at most [12] in 2 minutes$", result.stdout, re.MULTILINE), result.stdout
    assert "QUEUE" not in result.stdout


def test_stats_of_a_week_have_hours_and_several_queues(run: Run, ledger: SqlJobHistoryStore) -> None:
    week = data(run("stats", "--since", "7d", "--json"))
    assert week["step"] == 3_600
    assert (week["total"]["submitted"], week["total"]["failed"]) == (11, 3)
    assert {group["name"]: group["submitted"] for group in week["by_queue"]} == {"main": 10, "other": 1}
    assert week["by_task"][0]["waited"]["p50"] == pytest.approx(0.02, rel=0.1)
    assert sum(step["completed"] for step in week["steps"]) == 8
    assert re.search(r"^QUEUE .*\n(.*\n)*other +1 +0 +1 \(100.0%\)", run("stats", "--since", "7d").stdout, re.MULTILINE)


def test_stats_are_of_one_task_or_queue_and_of_any_range(run: Run, ledger: SqlJobHistoryStore) -> None:
    def sent(*words: str) -> Any:
        return data(run("stats", "--json", *words))["total"]["submitted"]

    days = (NOW - timedelta(days=3, hours=1), NOW - timedelta(days=3) + timedelta(hours=1))
    assert sent("--task", "shop.bill", "--since", "4d") == 1
    assert sent("--queue", "main", "--since", "4d") == 10
    assert sent("--since", "30m", "--until", "15min") == 8
    assert sent("--since", days[0].isoformat(), "--until", days[1].isoformat()) == 1
    assert sent("--task", "nobody") == 0


def test_stats_without_any_job_say_so_in_numbers(run: Run, data_dir: Path) -> None:
    SqlJobHistoryStore.open(load_settings(data_dir=data_dir).ledger_url).close()
    shown = run("stats").stdout
    assert re.search(r"^all +0 +0 +0 +0 +- +-$", shown, re.MULTILINE), shown


@pytest.mark.parametrize(
    "words", [("--since", "soon"), ("--since", "1h", "--until", "2h"), ("--until", "99999w"), ("--until", "")]
)
def test_a_time_that_makes_no_sense_is_refused_in_one_sentence(
    run: Run, ledger: SqlJobHistoryStore, words: tuple[str, ...]
) -> None:
    result = run("stats", *words)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("jobledger: ")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("5m", NOW - timedelta(minutes=5)),
        ("5 min", NOW - timedelta(minutes=5)),
        ("6H", NOW - timedelta(hours=6)),
        ("2d", NOW - timedelta(days=2)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-11-20T08:00Z", datetime(2026, 11, 20, 8, tzinfo=UTC)),
        ("2026-11-20T08:00+02:00", datetime(2026, 11, 20, 6, tzinfo=UTC)),
    ],
)
def test_a_time_is_so_long_ago_or_a_moment(text: str, moment: datetime) -> None:
    assert beginning("--since", text, NOW) == moment


@pytest.mark.parametrize("text", ["", "h", "-5m", "1y", "1.5h", "2026-13-01", "9" * 400])
def test_any_other_time_is_refused_by_its_option(text: str) -> None:
    with pytest.raises(InvalidJob, match=r"--since.*is no time"):
        beginning("--since", text, NOW)


# Failures


def test_failures_are_told_once_each_with_what_leads_to_their_jobs(run: Run, ledger: SqlJobHistoryStore) -> None:
    first, second = data(run("failures", "--json"))["groups"]
    assert (first["error_type"], first["pattern"], first["count"]) == ("ValueError", "order # is gone", 2)
    assert (first["frame"], first["example_job_id"]) == ("shop.ship", "bad-1")
    assert second["pattern"] == "'price'"

    shown = run("failures")
    assert re.search(
        rf"^ +2 +\d+ min +\d+ min +{first['fingerprint']} +ValueError: order # is gone$", shown.stdout, re.M
    )
    assert re.search(r"^ +in shop.ship, for instance bad-1$", shown.stdout, re.M)
    assert "jobledger jobs --failure-group" in shown.stderr

    listed = data(run("jobs", "--failure-group", first["fingerprint"], "--json"))
    assert [job["job_id"] for job in listed["jobs"]] == ["bad-1", "bad-0"]


def test_failures_go_on_at_a_cursor(run: Run, ledger: SqlJobHistoryStore) -> None:
    page = data(run("failures", "--limit", "1", "--json"))
    rest = data(run("failures", "--cursor", page["next_cursor"], "--json"))
    assert [len(page["groups"]), len(rest["groups"]), rest["next_cursor"]] == [1, 1, None]
    assert page["groups"] != rest["groups"]
    assert "--cursor" in run("failures", "--limit", "1").stderr
    assert run("failures", "--cursor", "x").returncode == 2


def test_without_a_failure_that_is_said(run: Run, data_dir: Path) -> None:
    SqlJobHistoryStore.open(load_settings(data_dir=data_dir).ledger_url).close()
    result = run("failures")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "No job is FAILED.\n")


def test_a_failure_in_a_real_worker_is_grouped_by_the_line_of_its_own_code(site: Any) -> None:
    site.start_worker()
    jobs = [site.controller.submit("jobs.boom", kwargs={"message": f"no route to {number}"}) for number in range(3)]
    for job_id in jobs:
        site.wait_for_end(job_id)

    service = JobHistoryService.connect(site.app, site.settings)
    [group] = service.failure_groups().groups
    counts = service.counts()
    statistics = service.statistics(NOW - timedelta(minutes=5))
    service.close()

    assert (group.error_type, group.pattern, group.count) == ("ValueError", "no route to #", 3)
    assert group.frame == "apps/jobs.py:boom"
    assert group.example_job_id == jobs[-1]
    assert counts.statuses[JobStatus.FAILED] == 3
    assert [(task.name, task.failed, task.ran.count) for task in statistics.by_task] == [("jobs.boom", 3, 3)]


def test_a_list_without_a_filter_says_how_many_jobs_there_are(run: Run, ledger: SqlJobHistoryStore) -> None:
    assert "In the ledger: 8 COMPLETED, 3 FAILED.\n" in run("jobs", "--limit", "2").stderr
    assert run("jobs", "--status", "failed").stderr == ""
    assert run("jobs", "--json").stderr == ""


# What should not happen


def test_the_doctor_tells_the_tallies_only_when_there_is_something(site: Any) -> None:
    def told() -> list[str]:
        return [finding.what for finding in examine(site.settings) if "reported" in finding.what]

    twice = _job("twice", "jobs.add", NOW, JobStatus.COMPLETED)
    site.store.append(twice)
    assert told() == []
    site.store.append([JobEvent(kind=EventKind.ENDED, job_id="twice", at=NOW, end=twice[2].end, run_id="another")])
    assert told() == ["1 ends were reported of jobs that had ended already."]
