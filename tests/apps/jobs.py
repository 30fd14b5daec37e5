"""The Celery application of the tests; the worker processes that they start import it by its name."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import jobledger
from celery import Celery
from celery.utils.log import get_task_logger
from jobledger.settings import Settings

#: Seconds after which a waiting job gives up, so that a failed test leaves nothing behind.
PATIENCE = 60

task_logger = get_task_logger("jobs_of_a_user")
own_logger = logging.getLogger("library_of_a_user")


def make_app(settings: Settings | None = None) -> Celery:
    """Return an application with the tests' tasks, installed with the settings or with the environment's."""
    app = Celery("jobs", set_as_current=False)
    app.conf.result_backend = os.environ.get("JOBS_RESULT_BACKEND")
    if "JOBS_START_METHOD" in os.environ:
        app.conf.worker_pool_start_method = os.environ["JOBS_START_METHOD"]
    if os.environ.get("JOBS_ACKS_LATE"):
        app.conf.task_acks_late = True
    if "JOBS_PREFETCH" in os.environ:
        app.conf.worker_disable_prefetch = False
        app.conf.worker_prefetch_multiplier = int(os.environ["JOBS_PREFETCH"])
    jobledger.install(app, settings)
    plain = (add, echo, nap, polite, wait_for, boom, leave, die, foreign_result, flaky, note, chatter, confide, flood)
    for function in plain:
        app.task(name=f"jobs.{function.__name__}", bind=function is flaky, shared=False)(function)
    return app


def add(x: int, y: int) -> int:
    return x + y


def echo(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"args": list(args), "kwargs": kwargs}


def nap(seconds: float) -> str:
    """Sleep without looking at the token."""
    time.sleep(seconds)
    return "rested"


def polite(seconds: float) -> str:
    """Work and look at the token."""
    job = jobledger.current_job()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job.raise_if_cancelled()
        time.sleep(0.01)
    return "done"


def wait_for(path: str, trace: str | None = None) -> str:
    """Hold a slot until a file exists."""
    note(trace, "started")
    deadline = time.monotonic() + PATIENCE
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    note(trace, "ended")
    return "opened"


def boom(message: str = "it broke") -> None:
    raise ValueError(message)


def leave(code: int = 3) -> None:
    sys.exit(code)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def foreign_result() -> object:
    return {1, 2, 3}


def flaky(self: Any, path: str, failures: int) -> int:
    """Fail so many times, then succeed; Celery retries at once."""
    with Path(path).open("a") as file:
        file.write("x")
    runs = Path(path).stat().st_size
    if runs <= failures:
        raise self.retry(exc=RuntimeError(f"run {runs} failed"), countdown=0, max_retries=failures)
    return runs


def note(path: str | None, line: str, seconds: float = 0) -> None:
    """Append a line to the truth that the jobs themselves write."""
    if path is None:
        return
    with Path(path).open("a") as file:
        file.write(line + "\n")
    time.sleep(seconds)


def chatter(lines: int) -> None:
    job = jobledger.current_job()
    for number in range(lines):
        job.log(f"line {number}")
        job.progress(number + 1, lines, f"step {number + 1}")


def confide() -> None:
    """Say something on every way that there is."""
    task_logger.info("by the task logger, with %s", "redis://:hunter2@cache/0")
    task_logger.debug("too quiet")
    own_logger.warning("by a logger of its own")
    print("by print")
    try:
        raise ValueError("inner")
    except ValueError:
        task_logger.exception("by an exception")
    task_logger.info("%d arguments are missing in %d")
    jobledger.current_job().log("by the job itself", "WARNING")


def flood(lines: int) -> float:
    """Return how many seconds it took to log so many lines."""
    started = time.perf_counter()
    for number in range(lines):
        task_logger.info("line %d", number)
    return time.perf_counter() - started


if os.environ.get("JOBLEDGER_DATA_DIR"):
    app = make_app()
