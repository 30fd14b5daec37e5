"""A worker: in this process, or as a process that ends with the one that started it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from ..errors import SettingsError
from ..settings import Settings
from ..workers.installation import start_directory

#: Seconds that a worker gets to end after its process group was killed.
_KILL_TIMEOUT: Final = 10.0
_NAME_LIMIT: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """How a worker runs; what is unset is Celery's own default."""

    name: str | None = None
    pool: str = "prefork"
    concurrency: int | None = None
    queues: str | None = None
    loglevel: str = "info"
    #: Passed to Celery as they are.
    extra: Sequence[str] = field(default=())

    def as_celery(self, name: str) -> list[str]:
        """Return Celery's arguments for it."""
        quiet = self.loglevel in ("warning", "error", "critical")
        return [
            *(("--quiet",) if quiet else ()),
            *("worker", "--without-mingle", "--without-gossip", "-n", self.name or name, "-P", self.pool),
            *("-l", self.loglevel),
            *(("-c", str(self.concurrency)) if self.concurrency else ()),
            *(("-Q", self.queues) if self.queues else ()),
            *self.extra,
        ]

    def as_flags(self) -> list[str]:
        """Return the arguments of ``jobledger worker`` for it."""
        named = {
            "--name": self.name,
            "--pool": self.pool,
            "--concurrency": self.concurrency,
            "--queues": self.queues,
            "--loglevel": self.loglevel,
        }
        flags = [text for flag, value in named.items() if value is not None for text in (flag, str(value))]
        return [*flags, *(("--", *self.extra) if self.extra else ())]


def run_worker(app: Any, settings: Settings, options: WorkerOptions) -> int:
    """Run an application's worker in this process until it is asked to stop; return its exit code.

    Raises:
        SettingsError: when Celery refuses its options.
    """
    import click

    with _node_name(settings) as name:
        try:
            code = app.worker_main(options.as_celery(name))
        except click.ClickException as error:
            raise SettingsError(f"Celery refuses the worker's options: {error.format_message()}") from None
    return int(code or 0)


@contextmanager
def _node_name(settings: Settings) -> Iterator[str]:
    """Give the first name that no other worker of this data directory has now: it stays the same over restarts."""
    start_directory(settings)
    directory = settings.data_dir / "nodes"
    directory.mkdir(mode=0o700, exist_ok=True)
    for number in range(1, _NAME_LIMIT):
        with (directory / f"worker{number}.lock").open("ab") as lock:
            if _is_taken(lock):
                continue
            yield f"worker{number}@%h"
            return


def _is_taken(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def end_with_owner(lifeline: int) -> None:
    """Kill this process, its pool and what they started as soon as the lifeline's other end is closed."""

    def watch() -> None:
        os.read(lifeline, 1)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, name="jobledger-lifeline", daemon=True).start()


class WorkerProcess:
    """A worker in a session of its own, so that Ctrl-C in the terminal does not reach it.

    It ends with this process, also when that is killed.
    """

    def __init__(self, options: WorkerOptions, log: Path | None = None) -> None:
        """Start it with this process's environment; its log goes to a file, else to this process's stderr."""
        lifeline, self._lifeline = os.pipe()
        command = [sys.executable, "-P", "-m", "jobledger", "worker", "--lifeline", str(lifeline)]
        try:
            with log.open("ab") if log else contextlib.nullcontext(sys.stderr) as output:
                self._process = subprocess.Popen(
                    [*command, *options.as_flags()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(lifeline,),
                    start_new_session=True,
                )
        finally:
            os.close(lifeline)

    @property
    def pid(self) -> int:
        """The pid of its main process."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """Return its exit code, or ``None`` while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to finish its jobs and end."""
        if self.exit_code() is None:
            self._process.terminate()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end; return whether it came."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it and everything it started at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait(_KILL_TIMEOUT)

    def close(self) -> None:
        """Cut the lifeline: whatever still runs is killed."""
        lifeline, self._lifeline = self._lifeline, -1
        if lifeline >= 0:
            os.close(lifeline)
