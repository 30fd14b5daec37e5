"""What a real worker's jobs log, by every way that there is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from jobledger.history.event_batch import LOG_LINES
from jobledger.settings import Settings
from jobledger.workers.job_context import JobContext, enter_job, leave_job
from jobledger.workers.job_log import HELD_LINES, LogLine
from jobledger.workers.log_handler import TASK_LOGGER, JobLogHandler

POOLS = pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])


def log_of(site: Any, job_id: str) -> list[tuple[str, str]]:
    return [(line.event.level, line.event.text) for line in site.store.get_job_log(job_id, LOG_LINES)]


def run(site: Any, *job: Any) -> str:
    job_id: str = site.controller.submit(*job)
    site.wait_for_end(job_id)
    return job_id


@POOLS
def test_a_jobs_log_has_what_it_and_its_task_logger_say(site: Any, eventually: Any, pool: str) -> None:
    worker = site.start_worker(pool=pool)

    job_id = run(site, "jobs.confide")

    eventually(lambda: ("WARNING", "by the job itself") in log_of(site, job_id))
    lines = log_of(site, job_id)
    assert lines[0] == ("INFO", "by the task logger, with redis://:[redacted]@cache/0")
    assert lines[1:3] == [("ERROR", "by an exception"), ("ERROR", "Traceback (most recent call last):")]
    assert ("ERROR", "ValueError: inner") in lines
    assert lines[-2:] == [("INFO", "%d arguments are missing in %d"), ("WARNING", "by the job itself")]
    events = [line.event for line in site.store.get_job_log(job_id)]
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert {event.worker_id for event in events} == {worker.name}
    assert len({event.run_id for event in events}) == 1


def test_a_jobs_log_has_its_other_loggers_and_its_prints_where_that_is_set(site: Any, eventually: Any) -> None:
    site.start_worker(JOBLEDGER_JOB_LOG="all", JOBLEDGER_JOB_LOG_LEVEL="WARNING")

    job_id = run(site, "jobs.confide")

    eventually(lambda: ("WARNING", "by the job itself") in log_of(site, job_id))
    lines = log_of(site, job_id)
    assert lines[:2] == [("WARNING", "by a logger of its own"), ("WARNING", "by print")]
    assert [level for level, _ in lines].count("INFO") == 0
    assert len(lines) == len(set(lines)), "each record is taken once"


def test_a_job_that_says_nothing_has_no_log_even_if_everything_is_taken(site: Any) -> None:
    site.start_worker("-l", "debug", JOBLEDGER_JOB_LOG="all", JOBLEDGER_JOB_LOG_LEVEL="DEBUG")

    assert log_of(site, run(site, "jobs.add", [1, 2])) == []


def test_only_what_the_job_itself_says_is_kept_where_that_is_set(site: Any, eventually: Any) -> None:
    site.start_worker(JOBLEDGER_JOB_LOG="off")

    job_id = run(site, "jobs.confide")

    eventually(lambda: log_of(site, job_id) == [("WARNING", "by the job itself")])


@POOLS
def test_the_workers_own_output_has_each_line_once_and_stays_as_it_was(site: Any, pool: str) -> None:
    worker = site.start_worker(pool=pool, JOBLEDGER_JOB_LOG="all")

    run(site, "jobs.confide")

    output = worker.log.read_text()
    for said in ("by the task logger", "by a logger of its own", "by print", "by an exception"):
        assert output.count(said) == 1, output
    assert "by the job itself" not in output


def test_a_log_is_kept_in_a_pool_that_spawns_its_processes(site: Any, eventually: Any) -> None:
    site.start_worker(JOBS_START_METHOD="spawn")

    job_id = run(site, "jobs.confide")

    eventually(lambda: ("WARNING", "by the job itself") in log_of(site, job_id))
    assert log_of(site, job_id)[0][1].startswith("by the task logger")


def test_a_job_that_logs_without_end_costs_little_and_keeps_its_newest_lines(site: Any, eventually: Any) -> None:
    worker = site.start_worker()

    job_id = site.controller.submit("jobs.flood", [50_000])
    site.wait_for_end(job_id, timeout=60)

    eventually(lambda: log_of(site, job_id)[-1:] == [("INFO", "line 49999")])
    lines = log_of(site, job_id)
    assert len(lines) == LOG_LINES
    assert any("lines are left out here" in text for _, text in lines)
    assert [text for _, text in lines[-HELD_LINES:]] == [f"line {number}" for number in range(49_900, 50_000)]
    written = sum(file.stat().st_size for file in Path(site.settings.journal_dir).glob("*.jsonl"))
    assert written < 2_000_000
    assert worker.log.read_text().count(": line ") == 50_000, "what the console gets is not our business"


class Notes:
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []

    def progress(self, job: JobContext, progress: Any) -> None: ...

    def log(self, job: JobContext, line: LogLine) -> None:
        self.lines.append(line)


@pytest.fixture
def notes() -> Iterator[Notes]:
    """Return what a job of this thread says."""
    notes = Notes()
    enter_job(JobContext("id", notes=notes))
    yield notes
    leave_job()


def record(name: str, text: Any, *arguments: Any) -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, __file__, 1, text, arguments, None)


@pytest.mark.parametrize(
    ("name", "is_taken"),
    [
        ("shop.jobs", True),
        ("root", True),
        (TASK_LOGGER, True),
        ("celery.redirected", True),
        ("jobledger_of_a_user", True),
        ("jobledger.journal", False),
        ("celery.app.trace", False),
        ("kombu.transport", False),
    ],
)
def test_records_of_those_who_run_the_job_are_not_the_jobs(notes: Notes, name: str, is_taken: bool) -> None:
    JobLogHandler(Settings()).handle(record(name, "said"))

    assert [line.text for line in notes.lines] == (["said"] if is_taken else [])


def test_a_record_that_two_loggers_pass_on_is_taken_once(notes: Notes) -> None:
    handler, said = JobLogHandler(Settings()), record("shop", "said")
    handler.handle(said)
    handler.handle(said)

    assert len(notes.lines) == 1


def test_outside_a_job_nothing_is_taken() -> None:
    JobLogHandler(Settings()).handle(record("shop", "said"))


class Unprintable:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error


def test_a_record_that_cannot_be_formatted_is_no_error_of_the_job(notes: Notes) -> None:
    JobLogHandler(Settings()).handle(record("shop", "%s", Unprintable(KeyError("no"))))
    JobLogHandler(Settings()).handle(record("shop", Unprintable(KeyError("no"))))

    assert [line.text for line in notes.lines] == ["%s", "(a record that cannot be formatted)"]


def test_a_time_limit_that_strikes_while_a_record_is_made_reaches_the_job(notes: Notes) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        JobLogHandler(Settings()).handle(record("shop", "%s", Unprintable(SoftTimeLimitExceeded())))


def test_a_configuration_that_takes_the_handler_away_does_not_matter_to_the_next_job() -> None:
    handler, logger = JobLogHandler(Settings()), logging.getLogger(TASK_LOGGER)
    try:
        handler.attach()
        handler.attach()
        assert logger.handlers.count(handler) == 1
        logger.handlers.remove(handler)
        handler.attach()
        assert logger.handlers.count(handler) == 1
    finally:
        logger.removeHandler(handler)
