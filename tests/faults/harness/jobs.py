"""The application of the harness: jobs that write the truth about themselves."""

from __future__ import annotations

import os
import signal
import time
from functools import cache
from pathlib import Path
from typing import Any

import jobledger
from celery import Celery
from jobledger.errors import JobCancelled

from .plan import Kind
from .truth import Act, TruthWriter


class UnsteadyError(Exception):
    """What Celery retries."""


def make_app() -> Celery:
    """Return the application, installed with the environment's settings."""
    app = Celery("faults", set_as_current=False)
    jobledger.install(app)
    app.task(name="faults.work")(work)
    app.task(name="faults.unsteady", bind=True, autoretry_for=(UnsteadyError,), default_retry_delay=0, max_retries=5)(
        unsteady
    )
    return app


def work(kind: str, seconds: float) -> str:
    """Do what the kind says, and write it down first."""
    _write(Act.START)
    match Kind(kind):
        case Kind.RAISE:
            _write(Act.RAISE)
            raise ValueError("as planned")
        case Kind.SUICIDE:
            _write(Act.DIE)
            os.kill(os.getpid(), signal.SIGKILL)
        case Kind.CANCEL_POLITE:
            _rest_politely(seconds)
        case _:
            time.sleep(seconds)
    _write(Act.END)
    return kind


def unsteady(self: Any, failures: int) -> int:
    """Fail so many times, then succeed."""
    _write(Act.START)
    if self.request.retries < failures:
        _write(Act.RAISE_AGAIN)
        raise UnsteadyError(f"failure {self.request.retries}")
    _write(Act.END)
    return failures


def _rest_politely(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            jobledger.current_job().raise_if_cancelled()
            time.sleep(0.02)
    except JobCancelled:
        _write(Act.STOP)
        raise


def _write(act: Act) -> None:
    job = jobledger.current_job()
    truth().write(job.job_id or "", act, run_id=job.run_id or "", retries=job.retries, node=job.node)


@cache
def truth() -> TruthWriter:
    """Return this process's writer."""
    return TruthWriter(Path(os.environ["FAULTS_TRUTH"]))


if "JOBLEDGER_DATA_DIR" in os.environ:
    app = make_app()
