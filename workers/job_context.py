"""What a job's own code can ask and say about itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, Protocol

from ..history.job import Progress
from .cancellation import CancelToken
from .job_log import JobLog, LogLine
from .runs import RunKey
from .token_bucket import TokenBucket

#: Recorded steps of progress a second, after a burst of as many; the newest value is never lost, see
#: ``JobContext.close``.
PROGRESS_RATE: Final = 4


class JobNotes(Protocol):
    """Where a job's progress and log go."""

    def progress(self, job: JobContext, progress: Progress) -> None:
        """Record how far the job is."""
        ...

    def log(self, job: JobContext, line: LogLine) -> None:
        """Record a line of the job's log; it is redacted."""
        ...


class JobContext:
    """The running job, as ``jobledger.current_job()`` gives it.

    Outside a worker ``job_id`` is ``None``, nothing is ever cancelled, and what the job says goes nowhere, so that
    job functions stay plain and testable.
    """

    def __init__(
        self,
        job_id: str | None = None,
        *,
        requeue: int = 0,
        retries: int = 0,
        run_id: str | None = None,
        node: str | None = None,
        token: CancelToken | None = None,
        notes: JobNotes | None = None,
    ) -> None:
        self.job_id = job_id
        self.requeue = requeue
        self.retries = retries
        self.run_id = run_id
        self.node = node
        self.token = token or CancelToken()
        self.started = time.monotonic()
        #: Whether the job published another task in its place (Celery's ``Task.replace``).
        self.replaced = False
        self._notes = notes
        self._log: JobLog | None = None
        self._unsaid: Progress | None = None
        self._was_complete = False
        self._progress_rate = TokenBucket(PROGRESS_RATE, PROGRESS_RATE)

    @property
    def key(self) -> RunKey:
        """Which attempt of which job this is."""
        return RunKey(self.job_id or "", self.requeue, self.retries)

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return 1 + self.requeue + self.retries

    @property
    def cancelled(self) -> bool:
        """Whether somebody cancelled this job; costs nanoseconds."""
        return self.token.cancelled

    def raise_if_cancelled(self) -> None:
        """Raise ``JobCancelled`` if somebody cancelled this job; let it pass through."""
        self.token.raise_if_cancelled()

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` from another thread when this job is cancelled, while it blocks elsewhere.

        Returns the function that takes the callback back.
        """
        return self.token.on_cancel(callback)

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Say how far the job is; only the newest value counts, and it is recorded four times a second at most.

        The last value of a run, and the first one that is complete, are always recorded.
        """
        if not math.isfinite(done) or not math.isfinite(total or 0):
            raise ValueError(f"progress must be finite numbers, not {done!r} of {total!r}")
        self._unsaid = Progress(done=done, total=total, text=text)
        completes = done == total and not self._was_complete
        self._was_complete |= completes
        if completes or not self._progress_rate.is_empty():
            self._say_progress()

    def log(self, text: str, level: str = "INFO", *, at: float | None = None) -> None:
        """Add lines to the job's log, which is kept with its history, redacted.

        A line ends after 2,000 characters. Of a job that writes more than 1,000 lines the newest are kept; one that
        writes more than twenty a second for long loses lines in the middle.

        Args:
            level: As Python's logging names them; for people.
            at: When it was said, as a Unix time in seconds; now unless given.
        """
        notes = self._notes
        if notes is None:
            return
        if self._log is None:
            self._log = JobLog(lambda line: notes.log(self, line))
        self._log.add(text, level, at)

    def close(self) -> None:
        """Record the last progress and the last lines, and stop watching for a cancel."""
        self._say_progress()
        if self._log is not None:
            self._log.flush()
        self.token.close()

    def _say_progress(self) -> None:
        if self._notes is not None and self._unsaid is not None:
            self._notes.progress(self, self._unsaid)
            self._progress_rate.take()
        self._unsaid = None


_current: ContextVar[JobContext | None] = ContextVar("jobledger_current_job", default=None)


def current_job() -> JobContext:
    """Return the job that this thread runs; outside a job, one that does nothing."""
    return _current.get() or JobContext()


def running_job() -> JobContext | None:
    """Return the job that this thread runs, if it runs one."""
    return _current.get()


def enter_job(context: JobContext) -> None:
    """Make ``context`` the job of this thread."""
    _current.set(context)


def leave_job() -> None:
    """Make this thread run no job."""
    _current.set(None)
