"""The installation under fault: its servers, and two homes, as two hosts would have them, with their processes."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cryptography.fernet import Fernet
from jobledger.history.agent_link import ask_agent
from jobledger.settings import load_settings

from .disk import SmallDisk
from .servers import Broker, LedgerServer, PostgresqlLedger, SqliteLedger

PACKAGE_PARENT = Path(__file__).parent.parent
_HOUR = 3_600


class Worker:
    """A worker's main process and its pool."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    def children(self) -> list[int]:
        """Return the pids of its pool."""
        pid = self.process.pid
        with contextlib.suppress(OSError):
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []


class Site:
    """Everything that a run starts; ``close`` ends all of it."""

    def __init__(self, directory: Path, ledger: str) -> None:
        self.directory = directory
        self.truth_dir = directory / "truth"
        self.log_dir = directory / "logs"
        self.truth_dir.mkdir()
        self.log_dir.mkdir()
        self.broker = Broker(directory / "broker")
        self.disk = SmallDisk(directory / "disk")
        #: The first home is on the disk that gets full.
        self.homes = [self.disk.directory / "home", directory / "home"]
        self.ledger: LedgerServer = (PostgresqlLedger if ledger == "postgresql" else SqliteLedger)(directory / "ledger")
        self._snapshot_key = Fernet.generate_key().decode()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._generation = 0

    def start_servers(self) -> None:
        """Start broker and ledger."""
        self.broker.start()
        self.ledger.start()

    def environment(self, home: Path) -> dict[str, str]:
        """Return what a process of a home runs in."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBLEDGER_")}
        return kept | {
            "JOBLEDGER_DATA_DIR": str(home),
            "JOBLEDGER_BROKER_URL": self.broker.url,
            "JOBLEDGER_HISTORY_URL": self.ledger.url,
            "JOBLEDGER_HEARTBEAT_INTERVAL": "0.5",
            "JOBLEDGER_JOURNAL_SEGMENT": "65536",
            "JOBLEDGER_CANCEL_GRACE": "0.5",
            "JOBLEDGER_SNAPSHOT_KEY": self._snapshot_key,
            "JOBLEDGER_APP": "harness.jobs:app",
            "FAULTS_TRUTH": str(self.truth_dir),
            "PYTHONPATH": os.pathsep.join([str(PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]),
        }

    def start(self, home: Path, log: str, *command: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a Python program of a home."""
        with (self.log_dir / log).open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment(home) | more,
                cwd=self.directory,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def start_worker(self, home: Path, clock: dict[str, str]) -> Worker:
        """Start a worker under a name that none had before, with the clock that the environment gives it."""
        self._generation += 1
        name = f"node{self._generation}@faults"
        command = ["celery", "-A", "harness.jobs", "worker", "-n", name, "-c", "2", "-l", "info"]
        log = f"node{self._generation}.log"
        process = self.start(home, log, *command, "--without-mingle", **clock)
        return Worker(name, process, self.log_dir / log)

    def start_leader(self) -> subprocess.Popen[bytes]:
        """Start the leader, in the second home."""
        return self.start(self.homes[1], "leader.log", "jobledger", "control")

    def agents(self) -> list[int]:
        """Return the pids of the recording agents of both homes."""
        found = []
        wanted = {f"JOBLEDGER_DATA_DIR={home}".encode() for home in self.homes}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if b"jobledger.history.agent" in (entry / "cmdline").read_bytes() and wanted & set(
                        (entry / "environ").read_bytes().split(b"\0")
                    ):
                        found.append(int(entry.name))
        return found

    def backlog(self) -> int:
        """Return how many bytes of journals are not recorded yet."""
        return sum(self._backlog(home) for home in self.homes)

    def _backlog(self, home: Path) -> int:
        answer = ask_agent(load_settings(data_dir=home, history_url=self.ledger.url), "status")
        if answer is not None:
            return int(answer["backlog_bytes"])
        return sum(path.stat().st_size for path in (home / "journal").glob("*.jsonl"))

    def close(self) -> None:
        """End every process and server, and give the disk back, whatever goes wrong with one of them."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.disk.close)
            stack.callback(self.ledger.stop)
            stack.callback(self.broker.stop, signal.SIGKILL)
            stack.callback(self._end_agents)
            for process in self._processes:
                stack.callback(_end_group, process)

    def _end_agents(self) -> None:
        deadline = time.monotonic() + 5
        while (agents := self.agents()) and time.monotonic() < deadline:
            for pid in agents:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def clock_ahead(hours: int) -> dict[str, str] | None:
    """Return the environment of a process whose calendar is wrong, and whose monotonic clock is right.

    ``None`` without the package libfaketime, or where its library does not load.
    """
    package = importlib.util.find_spec("libfaketime")
    for folder in (package and package.submodule_search_locations) or []:
        for library in Path(folder).glob("vendor/libfaketime/src/libfaketime*"):
            if library.suffix in (".1", ".dylib"):
                environment = {
                    "LD_PRELOAD": str(library),
                    "FAKETIME": f"{hours * _HOUR:+d}s",
                    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                    "DONT_FAKE_MONOTONIC": "1",
                    "NO_FAKE_STAT": "1",
                }
                return environment if _is_believed(environment, hours) else None
    return None


def _is_believed(environment: dict[str, str], hours: int) -> bool:
    question = [sys.executable, "-c", "import time; print(time.time())"]
    answer = subprocess.run(question, env=os.environ | environment, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        return False
    return abs(float(answer.stdout) - time.time() - hours * _HOUR) < _HOUR / 2
