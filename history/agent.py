"""The agent: the one small process per host, data directory and user that records journals and sends heartbeats.

It is elected by a lock, listens on a unix socket beside the journals, serves every node and publisher there, and
leaves when nobody needs it. It needs neither the broker nor the snapshot key. Run as ``python -m
jobledger.history.agent``, with the settings in the environment.
"""

from __future__ import annotations

import fcntl
import logging
import logging.handlers
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final, assert_never

from ..errors import JobledgerError
from ..settings import Settings, load_settings
from .agent_protocol import (
    Attach,
    Flush,
    Goodbye,
    Message,
    Ping,
    Status,
    agent_socket,
    ledger_fingerprint,
    remove_dead_sockets,
)
from .agent_recording import AgentRecording, Debt
from .agent_server import AgentServer, Client
from .journal import journal_ends, remove_unborn
from .kept_nodes import KeptNodes
from .node import Node, NodeEnd

logger = logging.getLogger("jobledger.agent")

#: Seconds between two looks whether the agent is still needed.
_LOOK_INTERVAL: Final = 0.5
#: Seconds between two sweeps for what dead processes left.
_SWEEP_INTERVAL: Final = 300.0
#: Seconds without clients and without work after which the agent leaves.
_LINGER: Final = 5.0
#: The same while the ledger is away or a journal cannot be read: the files wait for the next start.
_LINGER_IN_TROUBLE: Final = 60.0


class Agent:
    """The agent's clients and its end; one instance owns the directory's lock and socket until ``close``."""

    def __init__(self, settings: Settings, lock_fd: int) -> None:
        self._directory = settings.journal_dir
        self._lock_inode = os.fstat(lock_fd).st_ino
        self._fingerprint = ledger_fingerprint(settings.ledger_url)
        self._kept = KeptNodes(self._directory)
        self._server = AgentServer(agent_socket(self._directory))
        self._recording = AgentRecording(settings, self._kept, self._owns_directory, self._server.wake)
        self._stopping = False
        self._last_needed = time.monotonic()
        self._next_sweep = 0.0

    def run(self) -> None:
        """Serve until nobody needs the agent, or its directory is gone."""
        self._recording.start()
        while self._is_needed():
            self._sweep()
            self._serve_clients(_LOOK_INTERVAL)
        self._recording.stop()
        self._hand_out_receipts()

    def stop(self, *_: object) -> None:
        """End the loop soon; what cannot be recorded in a moment stays in the journals."""
        self._stopping = True
        self._server.wake()

    def close(self) -> None:
        """Give up the socket."""
        self._server.close()

    def _is_needed(self) -> bool:
        if self._stopping or not self._owns_directory() or not self._recording.is_alive():
            return False
        if self._server.clients:
            self._last_needed = time.monotonic()
            return any(not client.is_foreign for client in self._server.clients)
        has_work = self._recording.has_work()
        in_trouble = self._recording.trouble() is not None
        if has_work and not in_trouble:
            self._last_needed = time.monotonic()
        return time.monotonic() - self._last_needed < (_LINGER_IN_TROUBLE if has_work else _LINGER)

    def _owns_directory(self) -> bool:
        """Whether the lock file is still ours: a data directory that was removed needs no agent."""
        try:
            return (self._directory / "agent.lock").stat().st_ino == self._lock_inode
        except FileNotFoundError:
            return False

    def _sweep(self) -> None:
        if time.monotonic() >= self._next_sweep:
            remove_dead_sockets()
            remove_unborn(self._directory)
            self._kept.remove_unborn()
            self._next_sweep = time.monotonic() + _SWEEP_INTERVAL

    # -- clients

    def _serve_clients(self, timeout: float) -> None:
        self._server.listen_again_if_removed()
        for client, message in self._server.messages(timeout):
            self._obey(client, message)
        self._hand_out_receipts()
        for client in self._server.take_gone():
            self._see_off(client)

    def _obey(self, client: Client, message: Message) -> None:
        match message:
            case Attach():
                self._attach(client, message)
            case Flush(number):
                self._owe(client, number)
            case Goodbye(number):
                client.said_goodbye = True
                self._owe(client, number)
            case Ping():
                self._server.say(client, {"alive": True})
            case Status():
                self._server.say(client, self._status())
            case _:
                assert_never(message)

    def _attach(self, client: Client, message: Attach) -> None:
        client.boot_id = message.boot_id
        client.is_foreign = message.ledger != self._fingerprint
        self._server.say(client, {"attached": os.getpid()} | self._warning_for(client))
        if message.node is not None:
            client.node = message.node
            self._welcome(message.node)

    def _warning_for(self, client: Client) -> dict[str, str]:
        """A client of another ledger gets an agent of its own, once the clients of this one are gone."""
        if not client.is_foreign or all(other.is_foreign for other in self._server.clients):
            return {}
        return {
            "warning": f"The agent of {self._directory} records into another ledger than JOBLEDGER_HISTORY_URL of this "
            "process names; give each ledger a data directory of its own (JOBLEDGER_DATA_DIR)."
        }

    def _welcome(self, node: Node) -> None:
        self._recording.welcome(node)
        try:
            self._kept.keep(node)
        except OSError as error:
            logger.error("The node %s cannot be kept in %s: %s", node.name, self._directory, error)

    def _owe(self, client: Client, number: int) -> None:
        if client.boot_id is not None:
            self._recording.owe(Debt(client, journal_ends(self._directory, client.boot_id), number))

    def _hand_out_receipts(self) -> None:
        for client, number in self._recording.take_receipts():
            self._server.say(client, {"receipt": number})

    def _see_off(self, client: Client) -> None:
        if client.node is not None and not self._is_attached(client.node.boot_id):
            how = NodeEnd.STOPPED if client.said_goodbye else NodeEnd.DIED
            self._recording.see_off(client.node.boot_id, how)

    def _is_attached(self, boot_id: str) -> bool:
        return any(client.node is not None and client.boot_id == boot_id for client in self._server.clients)

    def _status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "nodes": sorted(client.node.name for client in self._server.clients if client.node is not None),
            "clients": len(self._server.clients),
            "backlog_bytes": self._recording.backlog(),
            "trouble": self._recording.trouble(),
        }


def main() -> int:
    """Run the agent of ``JOBLEDGER_DATA_DIR`` in the background; return when it listens, or when one runs already."""
    try:
        settings = load_settings()
        lock = _take_lock(settings.journal_dir / "agent.lock")
    except (JobledgerError, OSError) as error:
        return _cannot_start(error)
    if lock is None:
        return 0
    reader, writer = os.pipe()
    if os.fork() != 0:
        os.close(writer)
        os._exit(0 if os.read(reader, 1) else 1)
    os.close(reader)
    return _live(settings, lock, writer)


def _live(settings: Settings, lock: int, ready: int) -> int:
    """In the process that stays: the kernel tells the clients its pid, as that of who listens."""
    try:
        _allow_many_clients()
        agent = Agent(settings, lock)
    except (JobledgerError, OSError) as error:
        return _cannot_start(error)
    _log_to(settings.data_dir / "agent.log")
    signal.signal(signal.SIGTERM, agent.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(ready, b".")
    os.close(ready)
    try:
        agent.run()
    except Exception:
        logger.exception("The agent stops because of an error of its own")
        raise
    finally:
        agent.close()
    return 0


def _cannot_start(error: Exception) -> int:
    print(f"The recording agent cannot start: {error}", file=sys.stderr)
    return 1


def _take_lock(path: Path) -> int | None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _allow_many_clients() -> None:
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def _log_to(path: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=2**20, backupCount=1, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    logging.getLogger("jobledger").addHandler(handler)
    logging.getLogger("jobledger").setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main())
