"""The agent as a real process: one for each directory, started by whoever needs it, gone when nobody does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from jobledger.errors import HistoryUnavailable
from jobledger.history import agent_link, agent_protocol
from jobledger.history.agent_link import AgentLink, agent_is_silent, ask_agent, start_agent
from jobledger.history.agent_protocol import agent_socket
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.ids import new_id
from jobledger.history.journal import Journal, journal_files
from jobledger.history.node import Node, NodeEnd
from jobledger.history.silent_agent import end_silent_agent
from jobledger.history.sql_store import SqlJobHistoryStore
from jobledger.settings import Settings, load_settings

#: A process with a node's journal and link; the test plays the agent's other side.
NODE = """
import os, signal, sys, threading, time
from jobledger.history.agent_link import AgentLink
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.ids import new_id
from jobledger.history.journal import Journal
from jobledger.history.node import Node
from jobledger.settings import load_settings
settings = load_settings()
boot = new_id()
journal = Journal(settings.journal_dir, boot, segment=2**20)
node = Node(boot_id=boot, name=f"{boot}@test", host="test", pid=os.getpid(), pool="prefork", concurrency=1,
            started_at=now())
journal.open()
link = AgentLink(settings, boot, node)
link.start()
def put(number):
    return journal.append(JobEvent(kind=EventKind.STARTED, job_id=str(number), at=now(), boot_id=boot))
print(boot, flush=True)
"""


class Host:
    """One data directory with its agents, its links and its ledger."""

    def __init__(self, settings: Settings, eventually: Any) -> None:
        self.settings = settings
        self.eventually = eventually
        self.links: list[AgentLink] = []
        self.journals: list[Journal] = []
        self.programs: list[subprocess.Popen[str]] = []
        self._store: SqlJobHistoryStore | None = None

    @property
    def directory(self) -> Path:
        return self.settings.journal_dir

    @property
    def store(self) -> SqlJobHistoryStore:
        if self._store is None:
            self._store = SqlJobHistoryStore.open(self.settings.ledger_url)
        return self._store

    def link(self, boot_id: str | None = None, node: Node | None = None, **settings: Any) -> AgentLink:
        own_settings = self.settings.model_copy(update=settings)
        self.links.append(AgentLink(own_settings, boot_id or new_id(), node))
        self.links[-1].start()
        return self.links[-1]

    def journal(self, boot_id: str | None = None) -> Journal:
        self.journals.append(Journal(self.directory, boot_id or new_id(), segment=2**20))
        return self.journals[-1]

    def node(self, **fields: Any) -> Node:
        boot_id = new_id()
        known: dict[str, Any] = {
            "name": f"{boot_id}@test",
            "host": "test",
            "pid": 1,
            "pool": "prefork",
            "concurrency": 1,
        }
        return Node(boot_id=boot_id, started_at=now(), **(known | fields))

    def start_node(self, code: str = "signal.pause()") -> tuple[subprocess.Popen[str], str]:
        """Start a process that is a node, and return its boot id when the agent knows it."""
        environment = {
            **os.environ,
            "JOBLEDGER_DATA_DIR": str(self.settings.data_dir),
            "JOBLEDGER_HEARTBEAT_INTERVAL": str(self.settings.heartbeat_interval),
        }
        program = subprocess.Popen(
            [sys.executable, "-c", NODE + code],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.programs.append(program)
        assert program.stdout is not None
        boot_id = program.stdout.readline().strip()
        self.eventually(lambda: f"{boot_id}@test" in (self.status() or {}).get("nodes", []), message="it has no link")
        return program, boot_id

    def status(self) -> dict[str, Any] | None:
        return ask_agent(self.settings, "status")

    def pid(self) -> int:
        """The pid of the agent that listens, as soon as one does."""
        status: dict[str, Any] = self.eventually(self.status, message="no agent answers")
        return int(status["pid"])

    def agents(self) -> list[int]:
        """All agent processes of this data directory, whether they listen or not."""
        wanted = f"JOBLEDGER_DATA_DIR={self.settings.data_dir}".encode()
        found = []
        for directory in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if directory.name.isdigit() and b"\0jobledger.history.agent\0" in (directory / "cmdline").read_bytes():
                    environment = (directory / "environ").read_bytes().split(b"\0")
                    found += [int(directory.name)] if wanted in environment else []
        return found

    def found_node(self, boot_id: str) -> Node | None:
        return next((node for node in self.store.list_nodes(include_ended=True) if node.boot_id == boot_id), None)

    def end_of(self, boot_id: str) -> NodeEnd | None:
        node = self.found_node(boot_id)
        return node.ended_how if node else None

    def heartbeat(self, boot_id: str) -> int:
        node = self.found_node(boot_id)
        return node.heartbeat if node else -1

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(10)
        try:
            connection.connect(str(agent_socket(self.directory)))
        except OSError:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def ledger_locked(self) -> Iterator[None]:
        """Keep everybody else away from the ledger."""
        self.store.check()
        ledger = sqlite3.connect(self.settings.data_dir / "ledger.db", isolation_level=None)
        ledger.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            ledger.execute("ROLLBACK")
            ledger.close()

    def close(self) -> None:
        for link in self.links:
            link.close()
        for journal in self.journals:
            journal.close()
        for program in self.programs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.communicate()
        if self._store is not None:
            self._store.close()
        for pid in self.agents():
            os.kill(pid, signal.SIGKILL)
        self.eventually(lambda: not self.agents())


@pytest.fixture
def make_host(eventually: Any) -> Iterator[Callable[[Path], Host]]:
    hosts: list[Host] = []

    def make(data_dir: Path, **settings: Any) -> Host:
        hosts.append(Host(load_settings(data_dir=data_dir, heartbeat_interval=0.1, **settings), eventually))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


@pytest.fixture
def host(data_dir: Path, make_host: Callable[[Path], Host]) -> Host:
    return make_host(data_dir)


def event(number: int | str, text: str | None = None) -> JobEvent:
    return JobEvent(kind=EventKind.STARTED, job_id=str(number), at=now(), text=text)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def texts(host: Host, job_id: int | str) -> list[str | None]:
    return [recorded.event.text for recorded in host.store.get_job_events(str(job_id))]


class TestTheStart:
    def test_is_over_when_the_agent_listens(self, host: Host) -> None:
        start_agent(host.settings)
        assert host.status() is not None

    def test_of_a_second_one_ends_at_once(self, host: Host) -> None:
        start_agent(host.settings)
        first = host.pid()
        start_agent(host.settings)
        assert host.pid() == first
        assert host.agents() == [first]

    def test_by_many_at_once_leaves_one(self, host: Host, eventually: Any) -> None:
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(start_agent, [host.settings] * 6))
        pid = host.pid()
        eventually(lambda: host.agents() == [pid])

    def test_by_many_processes_with_links_is_tried_by_few(self, host: Host, tmp_path: Path) -> None:
        starts = tmp_path / "starts"
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\necho start >> "{starts}"\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o700)
        code = NODE + "link.flush(30)\nprint(put(1) and link.flush(30))\njournal.close()"
        environment = {**os.environ, "JOBLEDGER_DATA_DIR": str(host.settings.data_dir)}
        environment["JOBLEDGER_AGENT_PYTHON"] = str(python)
        command = [sys.executable, "-c", code]
        programs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(8)]
        assert [program.communicate()[0].split()[1] for program in programs] == ["True"] * 8
        assert len(starts.read_text().split()) <= 3

    def test_comes_with_a_link(self, host: Host) -> None:
        assert host.status() is None
        host.link()
        assert is_alive(host.pid())

    def test_makes_a_socket_that_only_its_user_can_reach(self, host: Host) -> None:
        start_agent(host.settings)
        assert agent_socket(host.directory).parent == host.directory
        assert agent_socket(host.directory).stat().st_mode & 0o777 == 0o600
        assert host.directory.stat().st_mode & 0o777 == 0o700

    def test_leaves_secrets_that_the_agent_does_not_need(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JOBLEDGER_SNAPSHOT_KEY", "the-key")
        monkeypatch.setenv("JOBLEDGER_BROKER_URL", "redis://:password@localhost/0")
        start_agent(host.settings)
        environment = Path(f"/proc/{host.pid()}/environ").read_bytes()
        assert b"the-key" not in environment
        assert b"password" not in environment

    def test_finds_a_ledger_whose_path_is_relative_to_its_starter(
        self, data_dir: Path, make_host: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
    ) -> None:
        monkeypatch.chdir(data_dir)
        host = make_host(data_dir / "data", history_url="sqlite:///mine.db")
        boot = new_id()
        host.journal(boot).append(event(1))
        assert host.link(boot).flush()
        assert (data_dir / "mine.db").exists()
        assert host.store.get_job("1") is not None

    @pytest.mark.parametrize("depth", [1, 8])
    def test_works_in_a_directory_of_any_length(
        self, data_dir: Path, make_host: Any, monkeypatch: pytest.MonkeyPatch, depth: int
    ) -> None:
        host = make_host(data_dir.joinpath(*["a long name, with spaces"] * depth))
        boot = new_id()
        host.journal(boot).append(event(1))
        assert host.link(boot).flush()
        monkeypatch.setenv("TMPDIR", str(data_dir))
        status = host.status()
        assert status is not None
        assert (agent_socket(host.directory).parent == host.directory) is (depth == 1)
        os.kill(status["pid"], signal.SIGTERM)
        host.eventually(lambda: host.links[0].close() or not host.agents())
        assert not agent_socket(host.directory).exists()

    def test_is_tried_ever_more_rarely_while_agents_do_not_stay(
        self, host: Host, tmp_path: Path, eventually: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        starts = tmp_path / "starts"
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\necho start >> {starts}\nexit 1\n")
        python.chmod(0o700)
        link = host.link(agent_python=python)
        assert not link.flush(timeout=4)
        assert 2 <= len(starts.read_text().split()) <= 5
        complaints = [record for record in caplog.records if record.name == "jobledger.agent"]
        assert len(complaints) == 1
        assert str(host.settings.data_dir / "agent.log") in complaints[0].getMessage()

    def test_waits_for_a_data_directory_that_cannot_be_written(
        self, data_dir: Path, make_host: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        (data_dir / "data").touch()
        host = make_host(data_dir / "data")
        boot = new_id()
        link = host.link(boot)
        assert not link.flush(timeout=0.3)
        assert len([record for record in caplog.records if record.name == "jobledger.agent"]) == 1
        (data_dir / "data").unlink()
        host.journal(boot).append(event(1))
        assert link.flush(timeout=15)
        assert host.store.get_job("1") is not None

    def test_in_a_directory_that_cannot_be_used_says_why(self, host: Host, capfd: pytest.CaptureFixture[str]) -> None:
        host.directory.mkdir(parents=True)
        (host.directory / "agent.sock").mkdir()
        with pytest.raises(subprocess.CalledProcessError):
            start_agent(host.settings)
        assert "The recording agent cannot start: " in (host.settings.data_dir / "agent.log").read_text()


class TestTheSweep:
    def test_removes_what_dead_processes_left_and_nothing_else(
        self, host: Host, data_dir: Path, monkeypatch: pytest.MonkeyPatch, eventually: Any
    ) -> None:
        host.directory.mkdir(parents=True)
        long_ago = time.time() - 2 * 86_400
        names = ("boot.1.new", "boot.2.kept", "boot.3.new", "boot.4.kept", "boot.board", "boot.node")
        for name in names:
            (host.directory / name).touch()
        for name in ("boot.1.new", "boot.2.kept", "boot.board", "boot.node"):
            os.utime(host.directory / name, (long_ago, long_ago))
        start_agent(host.settings)
        eventually(lambda: not (host.directory / "boot.2.kept").exists())
        left = {name for name in names if (host.directory / name).exists()}
        assert left == {"boot.3.new", "boot.4.kept", "boot.board", "boot.node"}

    def test_removes_sockets_on_which_nobody_listens(self, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agent_protocol, "_SHORT_PATHS", data_dir)
        short = data_dir / f"jobledger-{os.getuid()}"
        short.mkdir()
        long_ago = time.time() - 2 * 86_400
        with contextlib.ExitStack() as stack:
            for name in ("dead", "young", "alive"):
                listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                listener.bind(str(short / f"{name}.sock"))
                if name == "alive":
                    listener.listen()
                if name != "young":
                    os.utime(short / f"{name}.sock", (long_ago, long_ago))
            agent_protocol.remove_dead_sockets()
            assert sorted(path.name for path in short.iterdir()) == ["alive.sock", "young.sock"]


class TestReceipts:
    def test_say_that_the_ledger_holds_what_was_written(self, host: Host) -> None:
        boot = new_id()
        journal, link = host.journal(boot), host.link(boot)
        for turn in range(5):
            for number in range(200):
                journal.append(event("job", f"{turn}.{number}"))
            assert link.flush()
            assert len(texts(host, "job")) == 200 * (turn + 1)

    def test_cover_all_journals_of_the_boot(self, host: Host) -> None:
        boot = new_id()
        link = host.link(boot)
        for child in range(5):
            host.journal(boot).append(event(child))
        assert link.flush()
        assert all(host.store.get_job(str(child)) for child in range(5))

    def test_do_not_come_while_the_ledger_is_away(self, host: Host) -> None:
        boot = new_id()
        journal, link = host.journal(boot), host.link(boot)
        assert link.flush()
        with host.ledger_locked():
            journal.append(event(1))
            assert not link.flush(timeout=0.5)
        assert link.flush(timeout=20)
        assert host.store.get_job("1") is not None

    def test_come_from_the_next_agent_when_one_is_killed_before_it_answers(self, host: Host) -> None:
        boot = new_id()
        journal, link = host.journal(boot), host.link(boot)
        assert link.flush()
        agent = host.pid()
        os.kill(agent, signal.SIGSTOP)
        journal.append(event(1))
        with ThreadPoolExecutor(1) as thread:
            receipt = thread.submit(link.goodbye, 20)
            host.eventually(lambda: link._open_questions)
            os.kill(agent, signal.SIGKILL)
            assert receipt.result(25)
        assert host.store.get_job("1") is not None

    def test_of_many_askers_at_once_all_come(self, host: Host) -> None:
        boot = new_id()
        journal, link = host.journal(boot), host.link(boot)

        def write_and_ask(number: int) -> bool:
            journal.append(event(number))
            return link.flush(20) and host.store.get_job(str(number)) is not None

        host.store.check()
        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(write_and_ask, range(200)))

    def test_do_not_come_to_a_closed_link_nor_keep_it_waiting(self, host: Host) -> None:
        link = host.link()
        assert link.goodbye()
        started = time.monotonic()
        assert not link.flush(timeout=30)
        assert time.monotonic() - started < 5

    def test_reach_a_script_that_ends_at_once(self, host: Host) -> None:
        code = NODE + "put(1)\njournal.close()\nprint(link.goodbye())"
        environment = {**os.environ, "JOBLEDGER_DATA_DIR": str(host.settings.data_dir)}
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert result.stdout.split()[1:] == ["True"]
        assert host.store.get_job("1") is not None


class TestDeath:
    def test_of_the_agent_loses_and_doubles_nothing(self, host: Host) -> None:
        boot = new_id()
        journal, link = host.journal(boot), host.link(boot)
        killed = 0
        for number in range(9_000):
            journal.append(event(number % 9, str(number)))
            if number % 3_000 == 1_500:
                os.kill(host.pid(), signal.SIGKILL)
                killed += 1
        assert link.flush(30)
        assert killed == 3
        recorded = Counter(text for job in range(9) for text in texts(host, job))
        assert sorted(int(text or -1) for text in recorded) == list(range(9_000))
        assert set(recorded.values()) == {1}

    def test_of_the_agent_alone_ends_no_node(self, host: Host, eventually: Any) -> None:
        _, boot_id = host.start_node()
        os.kill(host.pid(), signal.SIGKILL)
        eventually(lambda: host.heartbeat(boot_id) >= 0)
        before = host.found_node(boot_id)
        assert before is not None
        eventually(lambda: host.status() and host.heartbeat(boot_id) >= 20, 20)
        assert host.end_of(boot_id) is None

    def test_of_a_node_is_recorded_after_all_it_wrote(self, host: Host, eventually: Any) -> None:
        program, boot_id = host.start_node(
            "for number in range(2_000): put(number)\nprint('written', flush=True)\nsignal.pause()"
        )
        assert program.stdout is not None
        assert program.stdout.readline() == "written\n"
        program.kill()
        eventually(lambda: host.end_of(boot_id))
        assert host.end_of(boot_id) is NodeEnd.DIED
        assert all(host.store.get_job(str(number)) for number in (0, 1_000, 1_999))
        assert journal_files(host.directory, boot_id) == []

    def test_of_a_node_is_not_recorded_while_a_child_of_it_writes(self, host: Host, eventually: Any) -> None:
        child = """
pid = os.fork()
if pid == 0:
    put(1)
    print("written", flush=True)
    sys.stdin.readline()
    put(2)
    os._exit(0)
signal.pause()
"""
        program, boot_id = host.start_node(child)
        assert program.stdout is not None
        assert program.stdin is not None
        assert program.stdout.readline() == "written\n"
        program.kill()
        eventually(lambda: host.status()["nodes"] == [])  # type: ignore[index]
        eventually(lambda: host.store.get_job("1") and len(journal_files(host.directory, boot_id)) == 1)
        assert host.end_of(boot_id) is None
        program.stdin.write("\n")
        program.stdin.flush()
        eventually(lambda: host.end_of(boot_id) is NodeEnd.DIED)
        assert host.store.get_job("2") is not None

    def test_of_a_node_is_seen_although_a_forked_child_lives(self, host: Host, eventually: Any) -> None:
        """The child has closed its copy of the connection, also the one that the link's reader holds."""
        code = """
while not link._is_attached:
    time.sleep(0.01)
time.sleep(0.2)
if os.fork() == 0:
    sockets = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            sockets += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            pass
    print(sockets, link.flush(30), flush=True)
    signal.pause()
signal.pause()
"""
        program, boot_id = host.start_node(code)
        assert program.stdout is not None
        assert program.stdout.readline() == "0 False\n"
        program.kill()
        eventually(lambda: host.end_of(boot_id) is NodeEnd.DIED)
        os.killpg(program.pid, 0)

    def test_of_node_and_agent_is_found_by_the_next_agent(self, host: Host, eventually: Any) -> None:
        program, boot_id = host.start_node("put(1)\nsignal.pause()")
        eventually(lambda: host.found_node(boot_id))
        agent = host.pid()
        os.kill(agent, signal.SIGKILL)
        program.kill()
        program.wait()
        eventually(lambda: not host.agents())
        start_agent(host.settings)
        eventually(lambda: host.end_of(boot_id) is NodeEnd.DIED)
        assert host.store.get_job("1") is not None

    def test_of_everything_while_the_ledger_was_away_is_found_too(self, host: Host, eventually: Any) -> None:
        """The ledger never heard of the node: it came and went while nobody could write."""
        with host.ledger_locked():
            program, boot_id = host.start_node("put(1)\nsignal.pause()")
            os.kill(host.pid(), signal.SIGKILL)
            program.kill()
            program.wait()
            eventually(lambda: not host.agents())
        assert host.found_node(boot_id) is None
        start_agent(host.settings)
        eventually(lambda: host.end_of(boot_id) is NodeEnd.DIED)
        assert host.store.get_job("1") is not None
        eventually(lambda: list(host.directory.glob(f"{boot_id}*")) == [])

    def test_after_a_goodbye_is_a_stop(self, host: Host, eventually: Any) -> None:
        node = host.node()
        journal, link = host.journal(node.boot_id), host.link(node.boot_id, node)
        journal.append(event(1))
        assert link.flush()
        journal.close()
        assert link.goodbye()
        eventually(lambda: host.end_of(node.boot_id) is NodeEnd.STOPPED)


class TestHeartbeats:
    def test_count_up_while_a_node_is_attached(self, host: Host, eventually: Any) -> None:
        node = host.node()
        host.journal(node.boot_id).open()
        host.link(node.boot_id, node)
        host.link()
        eventually(lambda: host.heartbeat(node.boot_id) >= 3)
        found = host.found_node(node.boot_id)
        assert found is not None
        assert found.home == (host.directory / "home").read_text()
        assert [known.boot_id for known in host.store.list_nodes()] == [node.boot_id]

    def test_end_with_the_node(self, host: Host, eventually: Any) -> None:
        program, boot_id = host.start_node()
        eventually(lambda: host.heartbeat(boot_id) >= 1)
        program.kill()
        eventually(lambda: host.end_of(boot_id))
        last = host.heartbeat(boot_id)
        other = host.node()
        host.link(other.boot_id, other)
        eventually(lambda: host.heartbeat(other.boot_id) >= 5)
        assert host.heartbeat(boot_id) == last

    def test_go_on_during_a_large_backlog(self, host: Host, eventually: Any) -> None:
        with host.ledger_locked():
            node = host.node()
            journals = [host.journal(node.boot_id) for _ in range(4)]
            for number in range(20_000):
                journals[number % 4].append(event(number % 1_000, "x" * 2_000))
            link = host.link(node.boot_id, node)
            host.pid()
        eventually(lambda: host.heartbeat(node.boot_id) >= 0)
        beats = []
        while not link.flush(timeout=0.3):
            beats.append(host.heartbeat(node.boot_id))
        assert beats == sorted(set(beats)), "it stood still"


class TestLedgerAway:
    def test_the_agent_says_so_and_goes_on_by_itself(self, host: Host, eventually: Any) -> None:
        boot = new_id()
        journal, link = host.journal(boot), host.link(boot)
        assert link.flush()
        agent = host.pid()
        with host.ledger_locked():
            journal.append(event(1))
            trouble = eventually(lambda: (ask_agent(host.settings, "status", 6) or {}).get("trouble"), 20)
            assert "does not answer" in trouble
        assert link.flush(20)
        status = host.status()
        assert status is not None
        assert (status["pid"], status["trouble"], status["backlog_bytes"]) == (agent, None, 0)
        log = (host.settings.data_dir / "agent.log").read_text()
        assert log.count("does not take events") == 1
        assert log.count("takes events again") == 1

    def test_the_agent_waits_for_a_ledger_that_is_not_there_yet(
        self, data_dir: Path, make_host: Any, eventually: Any
    ) -> None:
        (data_dir / "place").touch()
        host = make_host(data_dir / "data", history_url=f"sqlite:///{data_dir}/place/ledger.db")
        boot = new_id()
        host.journal(boot).append(event(1))
        link = host.link(boot)
        eventually(lambda: (host.status() or {}).get("trouble"))
        assert host.status()["backlog_bytes"] > 0
        (data_dir / "place").unlink()
        assert link.flush(20)
        assert host.store.get_job("1") is not None

    def test_a_password_is_never_told(self, data_dir: Path, make_host: Any, eventually: Any) -> None:
        url = "postgresql+psycopg://user:s3cr3t-word@127.0.0.1:1/none"
        host = make_host(data_dir, history_url=url)
        host.link()
        eventually(lambda: (host.status() or {}).get("trouble"))
        shown = json.dumps(host.status()) + (data_dir / "agent.log").read_text()
        assert "s3cr3t-word" not in shown
        assert b"s3cr3t-word" not in Path(f"/proc/{host.pid()}/cmdline").read_bytes()

    def test_a_node_that_the_ledger_refuses_holds_nothing_up(
        self, data_dir: Path, make_host: Any, postgresql_url: str
    ) -> None:
        host = make_host(data_dir, history_url=postgresql_url)
        node = host.node(name="nul \x00 in its name")
        host.journal(node.boot_id).append(event(1))
        assert host.link(node.boot_id, node).flush(20)
        assert host.store.get_job("1") is not None

    def test_an_unreadable_journal_holds_no_other_up(self, host: Host) -> None:
        (host.directory / "a.directory.jsonl").mkdir(parents=True)
        boot = new_id()
        host.journal(boot).append(event(1))
        assert host.link(boot).flush()
        status = host.status()
        assert status is not None
        assert "a.directory.jsonl" in status["trouble"]


class TestLeaving:
    def test_comes_when_nobody_is_connected_and_nothing_is_left(self, host: Host, eventually: Any) -> None:
        boot = new_id()
        journal, link = host.journal(boot), host.link(boot)
        journal.append(event(1))
        agent = host.pid()
        journal.close()
        assert link.goodbye()
        eventually(lambda: not is_alive(agent), 15)
        assert not agent_socket(host.directory).exists()
        assert host.link(boot).flush(), "nobody started it again"

    def test_does_not_come_while_a_writer_lives(self, host: Host, eventually: Any) -> None:
        journal = host.journal()
        journal.open()
        idle = time.monotonic()
        start_agent(host.settings)
        agent = host.pid()
        eventually(lambda: time.monotonic() - idle > 6)
        journal.append(event(1))
        eventually(lambda: host.store.get_job("1"))
        assert is_alive(agent)

    def test_comes_at_once_when_the_directory_is_removed(self, data_dir: Path, make_host: Any, eventually: Any) -> None:
        host = make_host(data_dir / "data")
        host.link()
        agent = host.pid()
        host.links[0].close()
        subprocess.run(["rm", "-rf", str(data_dir / "data")], check=True)
        eventually(lambda: not is_alive(agent), 3)
        assert not (data_dir / "data").exists()

    def test_makes_room_for_the_agent_of_a_directory_that_was_made_again(
        self, data_dir: Path, make_host: Any, eventually: Any
    ) -> None:
        host = make_host(data_dir / "data", history_url=f"sqlite:///{data_dir}/ledger.db")
        boot = new_id()
        journal, link = host.journal(boot), host.link(boot)
        journal.append(event(1))
        assert link.flush()
        agent = host.pid()
        subprocess.run(["rm", "-rf", str(data_dir / "data")], check=True)
        eventually(lambda: host.status() and host.pid() != agent)
        eventually(lambda: journal.append(event(2)) and journal_files(host.directory, boot), 5)
        assert link.flush()
        assert host.store.get_job("2") is not None

    def test_on_a_signal_records_the_rest_first(self, host: Host, eventually: Any) -> None:
        boot = new_id()
        journal, link = host.journal(boot), host.link(boot)
        assert link.flush()
        agent = host.pid()
        os.kill(agent, signal.SIGSTOP)
        link.close()
        for number in range(500):
            journal.append(event("job", str(number)))
        os.kill(agent, signal.SIGTERM)
        os.kill(agent, signal.SIGCONT)
        eventually(lambda: not is_alive(agent))
        assert len(texts(host, "job")) == 500

    def test_comes_when_every_client_names_another_ledger(
        self, host: Host, data_dir: Path, open_store: Any, caplog: pytest.LogCaptureFixture, eventually: Any
    ) -> None:
        """Somebody changed the setting and started again, faster than the old agent could leave."""
        boot = new_id()
        old = host.link()
        assert old.flush()
        agent = host.pid()
        assert old.goodbye()
        url = f"sqlite:///{data_dir}/other.db"
        host.journal(boot).append(event(1))
        other = host.link(boot, history_url=load_settings(history_url=url).history_url)
        eventually(lambda: other.flush(1) and host.pid() != agent)
        host.journal(boot).append(event(2))
        assert other.flush()
        assert open_store(url).get_job("2") is not None
        assert [record for record in caplog.records if "another ledger" in record.getMessage()] == []


class TestClients:
    def test_of_another_ledger_are_warned_while_it_serves_this_one(
        self, host: Host, data_dir: Path, caplog: pytest.LogCaptureFixture, eventually: Any
    ) -> None:
        assert host.link().flush()
        agent = host.pid()
        host.link(history_url=load_settings(history_url=f"sqlite:///{data_dir}/other.db").history_url)
        eventually(lambda: [record for record in caplog.records if "another ledger" in record.getMessage()])
        assert host.pid() == agent

    @pytest.mark.parametrize(
        "garbage",
        [
            b"garbage\n",
            b"\xff\xfe\x00\n",
            b"\n" * 1_000,
            b"[" * 200_000 + b"\n",
            b'{"op":"unheard of"}\n{"op":5}\n{}\n[]\nnull\n5\n',
            b'{"op":"flush"}\n{"op":"flush","id":"x"}\n{"op":"goodbye","id":null}\n',
            b'{"op":"attach","boot_id":5,"ledger":"x"}\n{"op":"attach","boot_id":"../*","ledger":"x"}\n',
            b'{"op":"attach","boot_id":"","ledger":"x"}\n{"op":"attach","boot_id":"b","ledger":"x","node":{"pid":"x"}}\n',
            b'{"op":"attach","boot_id":"b","ledger":"x","node":{"boot_id":"*","name":"n","host":"h","pid":1,"pool":"p",'
            b'"concurrency":1,"started_at":"2026-01-01T00:00:00Z"}}\n',
            b'{"op":"flush","id":1}\n',
            b"half a line",
        ],
        ids=range(11),
    )
    def test_that_talk_garbage_disturb_nobody(self, host: Host, garbage: bytes) -> None:
        boot = new_id()
        journal, link = host.journal(boot), host.link(boot)
        agent = host.pid()
        with host.connect() as connection:
            connection.sendall(garbage)
            journal.append(event(1))
            assert link.flush()
        assert link.flush()
        assert host.pid() == agent

    def test_that_never_end_their_line_are_dropped(self, host: Host) -> None:
        start_agent(host.settings)
        with host.connect() as connection, pytest.raises(OSError, match=r"Broken pipe|reset"):
            connection.sendall(b"x" * 8 * 2**20)
        assert host.status() is not None

    def test_that_never_listen_keep_nobody_waiting(self, host: Host) -> None:
        boot = new_id()
        link = host.link(boot)
        agent = host.pid()
        with host.connect() as connection:
            connection.settimeout(0.5)
            with contextlib.suppress(OSError):
                for _ in range(20_000):
                    connection.sendall(b'{"op":"status"}\n')
            assert link.flush(20)
        assert host.pid() == agent

    def test_may_be_many(self, host: Host) -> None:
        boots = [new_id() for _ in range(100)]
        start_agent(host.settings)
        links = [host.link(boot) for boot in boots]
        for number, boot in enumerate(boots):
            host.journal(boot).append(event(number))
        with ThreadPoolExecutor(20) as threads:
            assert all(threads.map(lambda link: link.flush(30), links))
        assert all(host.store.get_job(str(number)) for number in range(100))
        status = host.status()
        assert status is not None
        assert status["clients"] == 101

    def test_may_be_more_than_the_usual_limit_of_open_files(self, host: Host) -> None:
        start_agent(host.settings)
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(host.connect())
            boot = new_id()
            host.journal(boot).append(event(1))
            assert host.link(boot).flush()

    def test_get_through_again_when_somebody_removed_the_socket(self, host: Host, eventually: Any) -> None:
        boot = new_id()
        first = host.link(boot)
        assert first.flush()
        agent = host.pid()
        agent_socket(host.directory).unlink()
        host.journal(boot).append(event(1))
        assert host.link(boot).flush()
        assert first.flush()
        assert host.pid() == agent

    def test_learn_how_the_agent_is(self, host: Host, eventually: Any) -> None:
        node = host.node(name="celery@here")
        host.journal(node.boot_id).append(event(1))
        assert host.link(node.boot_id, node).flush()
        status = host.status()
        assert status is not None
        assert status["nodes"] == ["celery@here"]
        assert (status["clients"], status["backlog_bytes"], status["trouble"]) == (2, 0, None)

    def test_get_no_answer_where_no_agent_runs(self, host: Host) -> None:
        assert host.status() is None

    def test_are_not_held_up_by_an_agent_that_hangs(self, host: Host) -> None:
        start_agent(host.settings)
        agent = host.pid()
        os.kill(agent, signal.SIGSTOP)
        started = time.monotonic()
        assert ask_agent(host.settings, "status", 0.2) is None
        link = host.link()
        assert not link.flush(0.3)
        link.close()
        assert time.monotonic() - started < 5
        os.kill(agent, signal.SIGCONT)


class TestAnAgentThatHangs:
    @pytest.fixture
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agent_link, "_QUIET", 0.2)
        monkeypatch.setattr(agent_link, "_SILENCE", 0.2)

    @pytest.fixture
    def stopped(self, host: Host, impatient: None) -> Iterator[int]:
        """An agent with a client, stopped until the end of the test."""
        assert host.link().flush(20)
        agent = host.pid()
        os.kill(agent, signal.SIGSTOP)
        yield agent
        with contextlib.suppress(ProcessLookupError):
            os.kill(agent, signal.SIGCONT)

    def test_is_told_once_and_keeps_its_place_when_it_goes_on(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, stopped: int, caplog: Any, eventually: Any
    ) -> None:
        monkeypatch.setattr(agent_link, "_SILENCES_UNTIL_END", 1_000_000)
        [link] = host.links
        eventually(lambda: "has not answered for" in caplog.text)
        told = len(caplog.records)
        assert not link.flush(1)
        assert len(caplog.records) == told
        assert agent_is_silent(host.settings, 0.2)
        os.kill(stopped, signal.SIGCONT)
        assert link.flush(20)
        assert host.pid() == stopped
        assert not agent_is_silent(host.settings)

    def test_is_ended_by_its_client_and_loses_and_doubles_nothing(
        self, host: Host, stopped: int, eventually: Any
    ) -> None:
        boot = new_id()
        journal = host.journal(boot)
        for number in range(500):
            journal.append(event("job", str(number)))
        assert host.link(boot).flush(30)
        assert not is_alive(stopped)
        assert host.pid() != stopped
        assert texts(host, "job") == [str(number) for number in range(500)]

    def test_is_not_mistaken_for_another_process(self, host: Host, data_dir: Path, eventually: Any) -> None:
        """Whoever else listens there, or is another directory's agent, is left alone."""
        host.directory.mkdir(parents=True)
        (host.directory / "agent.lock").touch()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(data_dir / "stranger"))
            listener.listen()
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.connect(str(data_dir / "stranger"))
                assert not end_silent_agent(connection, host.directory)
        start_agent(host.settings)
        other = data_dir / "other"
        other.mkdir()
        (other / "agent.lock").touch()
        with host.connect() as connection:
            assert not end_silent_agent(connection, other)
            assert is_alive(host.pid())
            assert end_silent_agent(connection, host.directory)
        eventually(lambda: host.agents() == [])

    def test_is_left_alone_by_a_client_that_cannot_see_its_process(self, host: Host) -> None:
        """As from another container: there the number of its process means another one, or none."""
        start_agent(host.settings)
        code = """
import socket, sys
from pathlib import Path
from jobledger.history.silent_agent import end_silent_agent
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
    connection.connect(sys.argv[1])
    print(end_silent_agent(connection, Path(sys.argv[2])))
"""
        arguments = [sys.executable, "-c", code, str(agent_socket(host.directory)), str(host.directory)]
        result = subprocess.run([*IN_A_CONTAINER, *arguments], capture_output=True, text=True, check=False)
        if result.returncode:
            pytest.skip("namespaces can only be made by root")
        assert result.stdout == "False\n"
        assert is_alive(host.pid())


#: Runs a program with process numbers of its own, as a container does.
IN_A_CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc")


class TestManyProcesses:
    def test_start_one_agent_again_when_it_is_killed_while_they_idle(self, host: Host, eventually: Any) -> None:
        nodes = [host.start_node()[1] for _ in range(5)]
        eventually(lambda: all(host.heartbeat(node) >= 1 for node in nodes), 20)
        os.kill(host.pid(), signal.SIGKILL)
        before = {node: host.heartbeat(node) for node in nodes}
        eventually(lambda: all(host.heartbeat(node) > before[node] + 1 for node in nodes), 20)
        eventually(lambda: host.agents() == [host.pid()])
        assert all(host.end_of(node) is None for node in nodes)

    def test_of_several_containers_share_one_agent(self, host: Host, eventually: Any) -> None:
        code = NODE + "put(boot)\nprint(os.getpid(), link.flush(30))\nsys.stdin.read()"
        environment = {**os.environ, "JOBLEDGER_DATA_DIR": str(host.settings.data_dir)}
        command = [*IN_A_CONTAINER, sys.executable, "-c", code]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        containers = [subprocess.Popen(command, env=environment, start_new_session=True, **pipes) for _ in range(3)]
        host.programs += containers
        boots = [(container.stdout.readline() if container.stdout else "").strip() for container in containers]
        if not all(boots):
            pytest.skip("namespaces can only be made by root")
        answers = [container.stdout.readline() for container in containers if container.stdout]
        assert [answer.split()[1] for answer in answers] == ["True"] * 3
        assert {answer.split()[0] for answer in answers} == {"1"}, "they do not have numbers of their own"
        assert all(host.store.get_job(boot) for boot in boots)
        assert len(host.status()["nodes"]) == 3  # type: ignore[index]
        os.killpg(containers[0].pid, signal.SIGKILL)
        eventually(lambda: host.end_of(boots[0]) is NodeEnd.DIED, 20)
        # The agent may have gone with the container that had started it.
        eventually(lambda: len((host.status() or {}).get("nodes", [])) == 2, 20)
        assert [host.end_of(boot) for boot in boots[1:]] == [None, None]
        assert len(host.agents()) == 1

    def test_with_two_agents_record_everything_once(self, host: Host, eventually: Any) -> None:
        """As on a file system without locks: the second one takes the lock that the first one has."""
        start_agent(host.settings)
        code = """
import os, sys
from jobledger.history import agent
agent._take_lock = lambda path: os.open(path, os.O_RDWR)
sys.exit(agent.main())
"""
        environment = agent_link.agent_environment(host.settings)
        boots = [new_id() for _ in range(4)]
        journals = [host.journal(boot) for boot in boots]
        links = [host.link(boot) for boot in boots]
        assert all(link.flush(20) for link in links)
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        for number in range(20_000):
            journals[number % 4].append(event(number % 10, str(number)))
        eventually(lambda: len(two_agents(host)) == 2)
        assert all(link.flush(30) for link in links)
        recorded = Counter(text for job in range(10) for text in texts(host, job))
        assert sorted(int(text or -1) for text in recorded) == list(range(20_000))
        assert set(recorded.values()) == {1}


def two_agents(host: Host) -> list[int]:
    """All processes that have the agent's lock file open."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            lock = host.directory / "agent.lock"
            if process.name.isdigit() and any(fd.readlink() == lock for fd in (process / "fd").iterdir()):
                found.append(int(process.name))
    return found


class TestALedgerThatHangs:
    def test_keeps_nobody_from_being_answered(
        self, data_dir: Path, make_host: Any, hanging_url: str, proxy: Any, eventually: Any
    ) -> None:
        host = make_host(data_dir, history_url=hanging_url)
        node = host.node()
        journal, link = host.journal(node.boot_id), host.link(node.boot_id, node)
        assert link.flush(20)
        agent = host.pid()
        proxy.block()
        for number in range(100):
            journal.append(event("job", str(number)))
        answers: list[float] = []

        def hangs() -> bool:
            asked = time.monotonic()
            status = host.status()
            answers.append(time.monotonic() - asked)
            return bool(status) and "has not answered" in (status["trouble"] or "")

        eventually(hangs, 20)
        assert max(answers) < 1
        began = time.monotonic()
        assert not host.link().goodbye(0.5)
        assert time.monotonic() - began < 5
        proxy.unblock()
        assert link.flush(30)
        assert texts(host, "job") == [str(number) for number in range(100)]
        assert host.pid() == agent

    def test_does_not_keep_an_agent_that_is_told_to_stop(
        self, data_dir: Path, make_host: Any, hanging_url: str, proxy: Any, eventually: Any
    ) -> None:
        host = make_host(data_dir, history_url=hanging_url)
        boot = new_id()
        journal, link = host.journal(boot), host.link(boot)
        assert link.flush(20)
        agent = host.pid()
        proxy.block()
        journal.append(event("job", "late"))
        link.close()
        os.kill(agent, signal.SIGTERM)
        eventually(lambda: not is_alive(agent), 15)
        proxy.unblock()
        assert host.link(boot).flush(30)
        assert texts(host, "job") == ["late"]

    def test_is_given_up_after_a_while(self, hanging_url: str, proxy: Any) -> None:
        store = SqlJobHistoryStore.open(hanging_url, patience=0.5)
        store.append([event("job")])
        proxy.block()
        began = time.monotonic()
        with pytest.raises(HistoryUnavailable, match="does not answer"):
            store.append([event("job")])
        assert time.monotonic() - began < 10
        proxy.unblock()
        store.append([event("other")])
        assert store.get_job("other") is not None
        store.close()
