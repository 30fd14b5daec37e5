"""``current_job()`` outside a worker, and what a context passes on."""

from __future__ import annotations

import pytest
from jobledger import current_job
from jobledger.history.job import Progress
from jobledger.workers.job_context import JobContext, enter_job, leave_job


class Notes:
    """Remembers what was said."""

    def __init__(self) -> None:
        self.steps: list[Progress] = []
        self.lines: list[str] = []

    def progress(self, job: JobContext, progress: Progress) -> None:
        self.steps.append(progress)

    def log(self, job: JobContext, line: str) -> None:
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


def test_a_text_of_several_lines_becomes_several_log_lines_of_bounded_length() -> None:
    notes = Notes()

    JobContext("id", notes=notes).log("one\ntwo\n" + "x" * 5_000)

    assert notes.lines == ["one", "two", "x" * 2_000]
