"""The processes that submit and cancel: ``python -m harness.senders controller|plain|canceller PLAN PATIENCE``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from jobledger.controller.ledger import open_ledger
from jobledger.controller.queue_execution_controller import QueueExecutionController
from jobledger.errors import BrokerUnavailable, HistoryUnavailable, JobActionNotAllowed, JobNotFound
from jobledger.history.job import JobStatus
from jobledger.workers.installation import installation_of

from .jobs import app, truth
from .plan import Kind, PlannedJob, Sender, read_plan
from .truth import Act

_PAUSE = 0.1

T = TypeVar("T")


def main() -> int:
    """Carry out one part of the plan."""
    role, path, patience = sys.argv[1:]
    plan = read_plan(Path(path))
    match role:
        case Sender.CONTROLLER:
            _send(plan, Sender.CONTROLLER, _by_controller())
        case Sender.PLAIN:
            _send(plan, Sender.PLAIN, _plainly)
        case _:
            _cancel_all([job for job in plan if job.kind.is_cancelled], float(patience))
    return 0


def _send(plan: list[PlannedJob], sender: Sender, submit: Callable[[PlannedJob], None]) -> None:
    for job in _in_time([job for job in plan if job.sender is sender]):
        installation = installation_of(app)
        assert installation is not None
        truth().write(job.job_id, Act.SENDING, node=installation.recorder.boot_id)
        try:
            submit(job)
        except Exception as error:
            truth().write(job.job_id, Act.REFUSED, text=f"{type(error).__name__}: {error}")
        else:
            truth().write(job.job_id, Act.SENT)


def _in_time(jobs: list[PlannedJob]) -> Iterator[PlannedJob]:
    began = time.monotonic()
    for job in jobs:
        time.sleep(max(0.0, began + job.at - time.monotonic()))
        yield job


def _by_controller() -> Callable[[PlannedJob], None]:
    controller = _connect()

    def submit(job: PlannedJob) -> None:
        _until_the_ledger_answers(
            lambda: controller.submit(
                job.task, job.args, job_id=job.job_id, priority=job.priority, time_limit=job.time_limit
            )
        )

    return submit


def _plainly(job: PlannedJob) -> None:
    app.tasks[job.task].apply_async(job.args, task_id=job.job_id, priority=job.priority, time_limit=job.time_limit)


def _connect() -> QueueExecutionController:
    return _until_the_ledger_answers(lambda: QueueExecutionController.connect(app))


def _until_the_ledger_answers(question: Callable[[], T]) -> T:
    while True:
        try:
            return question()
        except HistoryUnavailable:
            time.sleep(_PAUSE)


def _cancel_all(jobs: list[PlannedJob], patience: float) -> None:
    """Cancel each job as soon as it is where its kind says; give it up after so many seconds."""
    controller = _connect()
    store = _until_the_ledger_answers(lambda: open_ledger(controller.settings))
    waiting = {job.job_id: (job, time.monotonic() + job.at + patience) for job in jobs}
    while waiting:
        entries = _until_the_ledger_answers(lambda: store.get_jobs(list(waiting)))
        for job_id, (job, deadline) in list(waiting.items()):
            entry = entries.get(job_id)
            if entry is not None and (entry.status is JobStatus.RUNNING or job.kind is Kind.CANCEL_QUEUED):
                _cancel(controller, job_id)
            elif time.monotonic() < deadline and not (entry and entry.status.is_terminal):
                continue
            del waiting[job_id]
        time.sleep(_PAUSE)


def _cancel(controller: QueueExecutionController, job_id: str) -> None:
    try:
        _until_the_ledger_answers(lambda: controller.cancel_job(job_id, "harness", "as planned"))
    except (JobNotFound, JobActionNotAllowed) as error:
        truth().write(job_id, Act.CANCEL_REFUSED, text=str(error))
    except BrokerUnavailable as error:
        truth().write(job_id, Act.CANCELLED, text=f"to be carried out later: {error}")
    else:
        truth().write(job_id, Act.CANCELLED)


if __name__ == "__main__":
    sys.exit(main())
