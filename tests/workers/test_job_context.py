"""``current_job()`` outside a worker, and what a context passes on."""

from __future__ import annotations

import pytest
from jobledger import current_job
from jobledger.history.job import Progress
from jobledger.workers.job_context import JobContext, enter_job, leave_job
from jobledger.workers.job_log import LogLine


class Notes:
    """Remembers what was said."""

    def __init__(self) -> None:
        self.steps: list[Progress] = []
        self.lines: list[LogLine] = []

    def progress(self, job: JobContext, progress: Progress) -> None:
        self.steps.append(progress)

    def log(self, job: JobContext, line: LogLine) -> None:
        self.lines.append(line)


def test_outside_a_worker_a_job_is_nobody_and_everything_it_says_is_harmless() -> None:
    job = current_job()

    job.raise_if_cancelled()
    job.progress(1, 2, "half")
    job.log("nobody hears this")

    assert job.job_id is None
    assert job.cancelled is False
    assert job.attempt == 1


def test_a_thread_has_the_job_that_it_entered() -> None:
    job = JobContext("id", retries=2, requeue=1)
    enter_job(job)

    assert current_job() is job
    assert job.attempt == 4

    leave_job()
    assert current_job().job_id is None


def test_of_many_steps_the_first_and_the_last_are_recorded() -> None:
    notes = Notes()
    job = JobContext("id", notes=notes)

    for step in range(1_000):
        job.progress(step, 1_000)
    job.close()

    assert notes.steps[0].done == 0
    assert notes.steps[-1].done == 999
    assert len(notes.steps) < 100


@pytest.mark.parametrize(("done", "total"), [(float("nan"), None), (1, float("inf")), (float("-inf"), 1)])
def test_progress_must_be_a_number_that_json_can_say(done: float, total: float | None) -> None:
    with pytest.raises(ValueError, match="finite"):
        JobContext("id", notes=Notes()).progress(done, total)


def test_steps_that_come_close_together_at_first_are_all_recorded() -> None:
    notes = Notes()
    job = JobContext("id", notes=notes)

    job.progress(1, 4, "load")
    job.progress(2, 4, "resize")

    assert [step.text for step in notes.steps] == ["load", "resize"]


def test_the_first_complete_step_is_recorded_at_once_and_further_ones_at_the_rate_of_all() -> None:
    notes = Notes()
    job = JobContext("id", notes=notes)

    for step in range(1_001):
        job.progress(step, 1_000)
    assert notes.steps[-1].done == 1_000

    for step in range(10_000):
        job.progress(step % 2, 1)
    assert len(notes.steps) < 100


def test_what_a_job_says_has_a_level_and_the_last_of_it_comes_out_at_the_end() -> None:
    notes = Notes()
    job = JobContext("id", notes=notes)

    job.log("one\ntwo")
    job.log("three", "WARNING")
    for number in range(5_000):
        job.log(str(number))
    job.close()

    said = [(line.text, line.level) for line in notes.lines[:3]]
    assert said == [("one", "INFO"), ("two", "INFO"), ("three", "WARNING")]
    assert notes.lines[-1].text == "4999"
