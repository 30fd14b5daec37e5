"""A process's link to the agent of its host: it starts the agent, keeps it running, and asks it for receipts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from typing import Any, BinaryIO, Final

import msgspec

from ..settings import Settings
from .agent_protocol import Attach, Flush, Goodbye, Message, Ping, agent_socket, ledger_fingerprint
from .fork_guard import fork_guard
from .node import Node
from .silent_agent import end_silent_agent

logger = logging.getLogger("jobledger.agent")

#: Seconds that a goodbye waits for its receipt, at most (design, section 4).
GOODBYE_TIMEOUT: Final = 5.0

_START_TIMEOUT: Final = 15.0
_RETRY_INTERVAL: Final = 1.0
_CONNECT_INTERVAL: Final = 0.05
#: Seconds between two starts of an agent that does not stay: the first pause and the longest.
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 30.0
#: Seconds after which an agent counts as one that stays.
_SETTLED: Final = 5.0
#: Seconds without a word from the agent after which it is asked for a sign of life, and those between two questions.
_QUIET: Final = 10.0
_SILENCE: Final = 5.0
#: After so many questions without an answer it is said that it hangs, and after so many it is replaced.
_SILENCES_UNTIL_COMPLAINT: Final = 1
_SILENCES_UNTIL_END: Final = 5
#: What an agent must not know.
_KEPT_FROM_AGENT: Final = frozenset({"JOBLEDGER_SNAPSHOT_KEY", "JOBLEDGER_BROKER_URL"})

_links: weakref.WeakSet[AgentLink] = weakref.WeakSet()


class AgentLink:
    """Keeps a connection to the agent from a thread of its own; nothing here raises, and only receipts are waited for.

    The connection itself is the sign of life: when this process goes, the agent sees it close.
    """

    def __init__(self, settings: Settings, boot_id: str, node: Node | None = None) -> None:
        self._settings = settings
        self._boot_id = boot_id
        self._node = node
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._connection: socket.socket | None = None
        self._is_attached = False
        #: Questions without a receipt, by number: a new agent is asked them again.
        self._open_questions: dict[int, Message] = {}
        self._receipts = 0
        self._asked = 0
        self._start_at = 0.0
        self._start_pause = _FIRST_PAUSE
        self._complained = False
        #: Whether no agent could be reached or started the last time.
        self._is_cut_off = False
        self._thread = threading.Thread(target=self._run, name="jobledger-agent-link", daemon=True)
        _links.add(self)

    def start(self) -> None:
        """Start keeping the link."""
        try:
            self._thread.start()
        except RuntimeError as error:
            self._complain(error)
            self._closing.set()

    def flush(self, timeout: float = GOODBYE_TIMEOUT) -> bool:
        """Wait until the ledger holds all that this boot has written so far; return whether it does."""
        return self._ask(Flush, timeout)

    def goodbye(self, timeout: float = GOODBYE_TIMEOUT) -> bool:
        """Say that this process ends as it should, and wait for the receipt; return whether it came.

        There is no wait for an agent that cannot be started: its receipt cannot come.
        """
        received = self._ask(Goodbye, timeout)
        self.close()
        return received

    def close(self) -> None:
        """Drop the link."""
        self._closing.set()
        self._disconnect()

    def _ask(self, question: type[Flush | Goodbye], timeout: float) -> bool:
        with self._changed:
            self._asked += 1
            number = self._asked
            self._open_questions[number] = question(number)
            if self._is_attached:
                self._send(self._open_questions[number])
            self._changed.wait_for(lambda: self._receipts >= number or self._is_vain(question), timeout)
            del self._open_questions[number]
            return self._receipts >= number

    def _is_vain(self, question: type[Flush | Goodbye]) -> bool:
        return self._closing.is_set() or (question is Goodbye and self._is_cut_off)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._keep_connection()
            except Exception as error:  # noqa: BLE001 - without this thread nobody would start the agent again
                self._is_cut_off = not self._is_attached
                self._complain(error)
            self._disconnect()
            self._closing.wait(_RETRY_INTERVAL if self._complained else _CONNECT_INTERVAL)

    def _keep_connection(self) -> None:
        connection = self._connect()
        connected_at = time.monotonic()
        self._introduce()
        try:
            self._listen(connection)
        finally:
            if time.monotonic() - connected_at >= _SETTLED:
                self._start_pause = _FIRST_PAUSE

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                return self._connect_once()
            except OSError:
                if self._closing.is_set() or time.monotonic() >= deadline:
                    raise
            self._start_agent_in_time()
            self._closing.wait(_CONNECT_INTERVAL)

    def _connect_once(self) -> socket.socket:
        self._disconnect()
        path = agent_socket(self._settings.journal_dir)
        with fork_guard:
            connection = self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_SILENCE)
        connection.connect(str(path))
        return connection

    def _start_agent_in_time(self) -> None:
        if time.monotonic() < self._start_at:
            return
        self._start_at = time.monotonic() + self._start_pause
        self._start_pause = min(_LONGEST_PAUSE, self._start_pause * 2)
        start_agent(self._settings)

    def _introduce(self) -> None:
        with self._changed:
            if self._closing.is_set():
                raise ConnectionAbortedError("the link was closed meanwhile")
            self._is_attached = True
            self._is_cut_off = False
            self._send(Attach(self._boot_id, ledger_fingerprint(self._settings.ledger_url), self._node))
            for number in sorted(self._open_questions):
                self._send(self._open_questions[number])

    def _listen(self, connection: socket.socket) -> None:
        unread, questions = b"", 0
        while True:
            connection.settimeout(_SILENCE if questions else _QUIET)
            try:
                data = connection.recv(65_536)
            except TimeoutError:
                self._bear_silence(connection, questions)
                questions += 1
                continue
            if not data:
                return
            questions = 0
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))

    def _bear_silence(self, connection: socket.socket, questions: int) -> None:
        """Counted in waits, not by the clock: a process that was stopped itself must not blame the agent."""
        if questions >= _SILENCES_UNTIL_COMPLAINT:
            self._complain(TimeoutError(f"it has not answered for {questions * _SILENCE:.0f} s"))
        if questions >= _SILENCES_UNTIL_END and end_silent_agent(connection, self._settings.journal_dir):
            logger.error("The recording agent did not answer for %.0f s and was ended", questions * _SILENCE)
            raise ConnectionAbortedError("the agent was ended because it did not answer")
        with self._changed:
            self._send(Ping())

    def _hear(self, message: dict[str, Any]) -> None:
        self._complained = False
        if message.get("warning"):
            logger.warning("%s", message["warning"])
        if "receipt" in message:
            with self._changed:
                self._receipts = max(self._receipts, message["receipt"])
                self._changed.notify_all()

    def _send(self, message: Message) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.sendall(msgspec.json.encode(message) + b"\n")

    def _disconnect(self) -> None:
        with self._changed, fork_guard:
            connection, self._connection = self._connection, None
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            self._is_attached = False
            self._changed.notify_all()

    def _complain(self, error: Exception) -> None:
        if not self._complained and not self._closing.is_set():
            logger.error(
                "The recording agent cannot be reached or started (%s; its own log is %s); events wait in %s",
                error,
                self._settings.data_dir / "agent.log",
                self._settings.journal_dir,
            )
        self._complained = True

    def _leave_to_parent(self) -> None:
        """In a forked child: an open copy of the connection would hide the parent's death from the agent."""
        self._closing = threading.Event()
        self._closing.set()
        self._changed = threading.Condition()
        self._open_questions = {}
        connection, self._connection = self._connection, None
        if connection is not None:
            # A plain close would leave the descriptor to the reader of the parent's thread, which is not here.
            os.close(connection.detach())


def _leave_all_to_parent() -> None:
    global _turn_of_threads  # noqa: PLW0603
    _turn_of_threads = threading.Lock()
    for link in list(_links):
        link._leave_to_parent()


os.register_at_fork(after_in_child=_leave_all_to_parent)


# A thread that closes the file of turns would give up the turn of another thread of this process, too.
_turn_of_threads = threading.Lock()


def start_agent(settings: Settings) -> None:
    """Start the agent of a data directory, and wait until it listens; where one runs already, the new one leaves.

    Returns at once while another process or thread starts one.

    Raises:
        OSError, subprocess.SubprocessError: when the agent's Python cannot be started, or the agent cannot start.
    """
    settings.journal_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _turn_of_threads.acquire(blocking=False):
        return
    try:
        _start_in_turn(settings)
    finally:
        _turn_of_threads.release()


def _start_in_turn(settings: Settings) -> None:
    with (settings.journal_dir / "agent.start").open("ab") as turn:
        if _is_taken(turn):
            return
        with (settings.data_dir / "agent.log").open("ab") as log, fork_guard:
            # A child forked meanwhile would hold the pipe on which Popen waits, and with it this thread for ever.
            process = _spawn(settings, log)
        with process:
            _wait_until_ready(process)


def _is_taken(turn: BinaryIO) -> bool:
    try:
        # Not a flock: a child that is forked meanwhile would inherit it.
        fcntl.lockf(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    return False


def _spawn(settings: Settings, log: BinaryIO) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [str(settings.agent_python or sys.executable), "-P", "-m", "jobledger.history.agent"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=settings.data_dir,
        env=agent_environment(settings),
        start_new_session=True,
    )


def _wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    try:
        code = process.wait(_START_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    if code != 0:
        raise subprocess.CalledProcessError(code, "the agent")


def agent_environment(settings: Settings) -> dict[str, str]:
    """Return the environment that an agent for these settings runs in; secrets travel here, not on its command line."""
    inherited = {name: value for name, value in os.environ.items() if name not in _KEPT_FROM_AGENT}
    return inherited | {
        "JOBLEDGER_DATA_DIR": str(settings.data_dir.absolute()),
        "JOBLEDGER_HISTORY_URL": settings.ledger_url,
        "JOBLEDGER_HEARTBEAT_INTERVAL": str(settings.heartbeat_interval),
    }


def ask_agent(settings: Settings, operation: str, timeout: float = 1.0) -> dict[str, Any] | None:
    """Ask the agent one question (``status``); ``None`` when no agent runs or it does not answer in time."""
    try:
        with _connected(settings, timeout) as connection:
            connection.sendall(json.dumps({"op": operation}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer: dict[str, Any] = json.loads(lines.readline())
                return answer
    except (OSError, ValueError):
        return None


def agent_is_silent(settings: Settings, timeout: float = 1.0) -> bool:
    """Whether an agent holds its place and does not answer."""
    try:
        with _connected(settings, timeout):
            return ask_agent(settings, "ping", timeout) is None
    except TimeoutError:
        return True
    except OSError:
        return False


def _connected(settings: Settings, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(str(agent_socket(settings.journal_dir)))
    except OSError:
        connection.close()
        raise
    return connection
