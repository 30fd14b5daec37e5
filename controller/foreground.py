"""What ``jobledger up`` runs: a worker process, kept running, until somebody asks for the end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from ..errors import HistoryUnavailable
from ..history.job_history_store import JobHistoryStore
from .worker_process import WorkerOptions, WorkerProcess

_INTERVAL: Final = 0.1
#: Seconds before a worker that died is started again.
_RESTART_PAUSE: Final = 1.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def on_signals(handler: Callable[[], None]) -> Iterator[None]:
    """Call ``handler`` for Ctrl-C, SIGTERM and the terminal's end, for the time of the block."""

    def handle(number: int, frame: FrameType | None) -> None:
        handler()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class Foreground:
    """Keeps one worker running until it is asked to stop; ``tell`` takes sentences for the user."""

    def __init__(self, options: WorkerOptions, store: JobHistoryStore, tell: Callable[[str], None]) -> None:
        self._options = options
        self._store = store
        self._tell = tell
        self._requests = 0
        self._obeyed = 0

    def run(self) -> bool:
        """Run until somebody asks for the end, or the worker cannot be started; return whether all went well.

        A worker that was ready once and dies is started again.
        """
        with on_signals(self._request_stop):
            while self._run_worker() and not self._requests:
                time.sleep(_RESTART_PAUSE)
        return self._requests == 1

    def _run_worker(self) -> bool:
        """Run one worker to its end; return whether it was ready before."""
        worker = WorkerProcess(self._options)
        try:
            was_ready = self._attend(worker)
        finally:
            worker.close()
        if not self._requests:
            then = "it is started again" if was_ready else "it cannot be started, its log says why"
            self._tell(f"The worker has ended with exit code {worker.exit_code()}; {then}.")
        return was_ready

    def _request_stop(self) -> None:
        self._requests += 1

    def _attend(self, worker: WorkerProcess) -> bool:
        announced = False
        while worker.exit_code() is None:
            announced = announced or self._announce(worker)
            self._obey(worker)
            worker.wait(_INTERVAL)
        return announced

    def _announce(self, worker: WorkerProcess) -> bool:
        """Say that the worker is there, once the ledger knows it."""
        try:
            node = next((node for node in self._store.list_nodes() if node.pid == worker.pid), None)
        except HistoryUnavailable:
            return False
        if node is None:
            return False
        queues = ", ".join(node.queues) or "the default queue"
        self._tell(f"Ready: {node.name} runs up to {node.concurrency} jobs at a time ({node.pool}) from {queues}.")
        return True

    def _obey(self, worker: WorkerProcess) -> None:
        if self._requests > self._obeyed and self._obeyed == 0:
            self._obeyed = 1
            self._tell("Stopping after the jobs that run now; Ctrl-C once more kills them.")
            worker.stop()
        elif self._requests > 1:
            self._tell("Killed; the jobs that ran are recorded as interrupted at the next start.")
            worker.kill()


def wait_for_signal() -> None:
    """Wait until this process is asked to stop."""
    stop = threading.Event()
    with on_signals(stop.set):
        # A wait without a timeout would not let Python run the handler.
        while not stop.wait(_INTERVAL):
            pass
