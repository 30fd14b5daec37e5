"""Ledgers for benchmarks, each fresh and removed afterwards, and what processes cost.

PostgreSQL is found at JOBLEDGER_TEST_POSTGRES_URL, else at postgresql://postgres@127.0.0.1:5432/postgres; its user must
be allowed to make databases.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

LEDGERS = ("sqlite", "postgresql")
_SERVER = "postgresql://postgres@127.0.0.1:5432/postgres"
_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def fresh_ledger(kind: str, directory: Path) -> Iterator[str]:
    """Give the address of a ledger that is not there yet."""
    if kind == "sqlite":
        yield f"sqlite:///{directory / f'{uuid.uuid4().hex}.db'}"
        return
    server = make_url(os.environ.get("JOBLEDGER_TEST_POSTGRES_URL") or _SERVER).set(drivername="postgresql+psycopg")
    name = f"jobledger_benchmark_{uuid.uuid4().hex[:12]}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield server.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time of processes and of their children that are gone; 0 for one that is gone itself."""
    return sum(_cpu_of(pid) for pid in pids)


def _cpu_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS


def with_descendants(pid: int) -> set[int]:
    """Return a process and everything below it that runs now."""
    parents = {int(path.name): _parent_of(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _parent_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def agent_of(data_dir: Path) -> set[int]:
    """Return the pid of the agent of a data directory, if one runs."""
    mark = f"JOBLEDGER_DATA_DIR={data_dir}\0".encode()
    found = set()
    for process in Path("/proc").iterdir():
        try:
            if b"jobledger.history.agent" in (process / "cmdline").read_bytes():
                found |= {int(process.name)} if mark in (process / "environ").read_bytes() + b"\0" else set()
        except (FileNotFoundError, NotADirectoryError, PermissionError, ProcessLookupError):
            continue
    return found


def postgresql_backends(url: str) -> set[int]:
    """Return the pids of the server's processes that serve a ledger, where it is PostgreSQL on this machine."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        return set()
    engine = create_engine(parsed.set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            return set(connection.scalars(text(query)))
    finally:
        engine.dispose()


def percentile(values: list[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
