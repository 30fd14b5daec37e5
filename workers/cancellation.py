"""The job's side of a cancel: a token that costs nanoseconds to look at."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable

from ..errors import JobCancelled

logger = logging.getLogger("jobledger.cancellation")

_WATCH_INTERVAL = 0.02


class CancelToken:
    """Says whether a job was cancelled.

    A token made by hand is set by ``cancel()``; a worker's token looks at a flag that the node sets, given as
    ``probe``. Once set, a token stays set. Safe to use from any thread.
    """

    def __init__(self, probe: Callable[[], bool] | None = None) -> None:
        self._probe = probe
        self._is_set = False
        self._is_closed = False
        self._callbacks: list[Callable[[], object]] = []
        self._watcher: threading.Thread | None = None

    @property
    def cancelled(self) -> bool:
        """Whether somebody cancelled the job."""
        return self._is_set or (self._probe is not None and self._probe())

    def cancel(self) -> None:
        """Set the token."""
        self._is_set = True

    def raise_if_cancelled(self) -> None:
        """Raise ``JobCancelled`` if the token is set."""
        if self.cancelled:
            raise cancelled_error()

    def wait(self, timeout: float) -> bool:
        """Sleep for ``timeout`` seconds, or until the token is set; return whether it is."""
        deadline = time.monotonic() + timeout
        while not self.cancelled and (rest := deadline - time.monotonic()) > 0:
            time.sleep(min(rest, _WATCH_INTERVAL))
        return self.cancelled

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` once, from a thread of the token's own, as soon as the token is set.

        For a job that blocks elsewhere: the callback interrupts what it waits for. Its errors are logged. Returns the
        function that takes it back, for when the job no longer waits there.
        """
        self._callbacks.append(callback)
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="jobledger-cancel-watch", daemon=True)
            self._watcher.start()
        return lambda: self._take_back(callback)

    def close(self) -> None:
        """End the watching; callbacks that have not been called yet never will be."""
        self._is_closed = True

    def _take_back(self, callback: Callable[[], object]) -> None:
        with contextlib.suppress(ValueError):
            self._callbacks.remove(callback)

    def _watch(self) -> None:
        while not self._is_closed:
            if self.cancelled:
                self._call_back()
            time.sleep(_WATCH_INTERVAL)

    def _call_back(self) -> None:
        while self._callbacks:
            callback = self._callbacks.pop(0)
            try:
                callback()
            except Exception:
                logger.exception("An on_cancel callback failed")


def cancelled_error() -> JobCancelled:
    """Return the exception that ends a cancelled job, in the shape that Celery lets through."""
    return _error_type("This job was cancelled")


#: A worker replaces this by a subclass that Celery neither retries nor reports as a failure.
_error_type: type[JobCancelled] = JobCancelled


def use_error_type(error_type: type[JobCancelled]) -> None:
    """Make ``cancelled_error`` return instances of ``error_type``."""
    global _error_type  # noqa: PLW0603
    _error_type = error_type
