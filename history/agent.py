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

from msgspec.structs import replace

from ..errors import EventRefused, JobledgerError
from ..settings import Settings, load_settings
from .agent_protocol import Attach, Flush, Goodbye, Message, Status, agent_socket, ledger_fingerprint
from .agent_server import AgentServer, Client
from .event import now
from .job_history_store import JobHistoryStore
from .journal import home_of, journal_ends, journal_files, remove_unborn
from .kept_nodes import KeptNodes
from .node import Node, NodeEnd
from .recorder import BATCH_BYTES, Recorder
from .redaction import redact_text

logger = logging.getLogger("jobledger.agent")

#: Seconds between two looks at the journals while no events come, and the least and the most while they do.
_IDLE_INTERVAL: Final = 0.02
_LEAST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.05
#: A pause lasts this many times as long as the work before it: the agent leaves the processors to the jobs.
_PAUSE_RATIO: Final = 4
#: Seconds without clients and without work after which the agent leaves.
_LINGER: Final = 5.0
#: The same while the ledger is away or a journal cannot be read: the files wait for the next start.
_LINGER_IN_TROUBLE: Final = 60.0
#: Seconds for what is left when the agent is told to stop.
_DRAIN: Final = 3.0
_BACKOFF_LIMIT: Final = 5.0
#: Seconds that a starting agent gives nodes of before to attach, before it looks which of them are gone.
_ADOPTION_GRACE: Final = 1.0


class Agent:
    """The agent's loop; one instance owns the directory's lock and socket until ``close``."""

    def __init__(self, settings: Settings, lock_fd: int) -> None:
        self._settings = settings
        self._directory = settings.journal_dir
        self._lock_inode = os.fstat(lock_fd).st_ino
        self._home = home_of(self._directory)
        self._fingerprint = ledger_fingerprint(settings.ledger_url)
        self._kept = KeptNodes(self._directory)
        self._server = AgentServer(agent_socket(self._directory))
        self._store: JobHistoryStore | None = None
        self._recorder: Recorder | None = None
        #: Boots that have ended and whose journals are not all recorded yet.
        self._ending: dict[str, NodeEnd] = {}
        self._unannounced: list[Node] = self._kept.all()
        self._started = time.monotonic()
        self._adopted = False
        self._stopping = False
        self._last_needed = time.monotonic()
        self._next_heartbeat = 0.0
        self._backoff = 0.0
        self._retry_at = 0.0
        self._trouble: str | None = None

    def run(self) -> None:
        """Serve until nobody needs the agent, or its directory is gone."""
        remove_unborn(self._directory)
        interval = _IDLE_INTERVAL
        while self._is_needed():
            self._serve_clients(interval)
            began = time.monotonic()
            shipped = self._work()
            interval = _pause_after(shipped, time.monotonic() - began)
        self._drain()

    def stop(self, *_: object) -> None:
        """End the loop soon; what cannot be recorded in a moment stays in the journals."""
        self._stopping = True

    def close(self) -> None:
        """Give up the socket and the ledger."""
        self._server.close()
        self._close_ledger()

    def _close_ledger(self) -> None:
        """The next try opens it anew: a file that was removed is made again, one that was read-only is written."""
        store, self._store, self._recorder = self._store, None, None
        if store is not None:
            store.close()

    def _is_needed(self) -> bool:
        if self._stopping or not self._owns_directory():
            return False
        if self._server.clients:
            self._last_needed = time.monotonic()
            return any(not client.is_foreign for client in self._server.clients)
        has_work = bool(self._ending or journal_files(self._directory))
        in_trouble = self._shown_trouble() is not None
        if has_work and not in_trouble:
            self._last_needed = time.monotonic()
        return time.monotonic() - self._last_needed < (_LINGER_IN_TROUBLE if has_work else _LINGER)

    def _owns_directory(self) -> bool:
        """Whether the lock file is still ours: a data directory that was removed needs no agent."""
        try:
            return (self._directory / "agent.lock").stat().st_ino == self._lock_inode
        except FileNotFoundError:
            return False

    def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN
        while self._owns_directory() and self._work() and time.monotonic() < deadline:
            pass

    # -- clients

    def _serve_clients(self, timeout: float) -> None:
        self._server.listen_again_if_removed()
        for client, message in self._server.messages(timeout):
            self._obey(client, message)
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
        self._unannounced.append(node)
        try:
            self._kept.keep(node)
        except OSError as error:
            logger.error("The node %s cannot be kept in %s: %s", node.name, self._directory, error)

    def _owe(self, client: Client, number: int) -> None:
        if client.boot_id is not None:
            client.owed.append((journal_ends(self._directory, client.boot_id), number))

    def _see_off(self, client: Client) -> None:
        if client.node is not None and not self._is_attached(client.node.boot_id):
            self._ending[client.node.boot_id] = NodeEnd.STOPPED if client.said_goodbye else NodeEnd.DIED

    def _is_attached(self, boot_id: str) -> bool:
        return any(client.node is not None and client.boot_id == boot_id for client in self._server.clients)

    def _status(self) -> dict[str, Any]:
        backlog = self._recorder.backlog() if self._recorder else sum(f.size() for f in journal_files(self._directory))
        return {
            "pid": os.getpid(),
            "nodes": sorted(client.node.name for client in self._server.clients if client.node is not None),
            "clients": len(self._server.clients),
            "backlog_bytes": backlog,
            "trouble": self._shown_trouble(),
        }

    def _shown_trouble(self) -> str | None:
        return self._trouble or (self._recorder.obstacle() if self._recorder else None)

    # -- the ledger

    def _work(self) -> int:
        """Do what the ledger needs; return how many bytes of journals were recorded."""
        if time.monotonic() < self._retry_at:
            return 0
        try:
            shipped = self._record()
        except Exception as error:  # noqa: BLE001 - whatever it is, the journals wait, and the next try may succeed
            self._back_off(error)
            return 0
        self._recovered()
        return shipped

    def _record(self) -> int:
        recorder, store = self._connect()
        self._announce(store)
        self._send_heartbeats(store)
        shipped = recorder.ship()
        self._hand_out_receipts(recorder)
        self._adopt_orphans(store)
        self._end_boots(recorder, store)
        return shipped

    def _connect(self) -> tuple[Recorder, JobHistoryStore]:
        if self._store is None or self._recorder is None:
            from .sql_store import SqlJobHistoryStore

            self._store = SqlJobHistoryStore.open(self._settings.ledger_url)
            self._recorder = Recorder(self._directory, self._store)
        return self._recorder, self._store

    def _announce(self, store: JobHistoryStore) -> None:
        while self._unannounced:
            node = self._unannounced[0]
            try:
                store.record_node(replace(node, home=self._home))
            except EventRefused as refusal:
                logger.error("The node %r cannot be recorded: %s", node.name, refusal)
            del self._unannounced[0]

    def _send_heartbeats(self, store: JobHistoryStore) -> None:
        moment = time.monotonic()
        if moment < self._next_heartbeat:
            return
        boots = {client.node.boot_id for client in self._server.clients if client.node is not None}
        if boots:
            store.record_heartbeats(boots, now())
        self._next_heartbeat = moment + self._settings.heartbeat_interval

    def _hand_out_receipts(self, recorder: Recorder) -> None:
        for client in list(self._server.clients):
            while client.owed and recorder.is_recorded(client.owed[0][0]):
                _, number = client.owed.pop(0)
                self._server.say(client, {"receipt": number})

    def _adopt_orphans(self, store: JobHistoryStore) -> None:
        """Once after the start: find this home's nodes that went while no agent watched."""
        if self._adopted or time.monotonic() - self._started < _ADOPTION_GRACE:
            return
        nodes = self._kept.all() + [node for node in store.list_nodes() if node.home == self._home]
        for node in nodes:
            if not self._is_attached(node.boot_id):
                self._ending.setdefault(node.boot_id, NodeEnd.DIED)
        self._adopted = True

    def _end_boots(self, recorder: Recorder, store: JobHistoryStore) -> None:
        for boot_id, how in list(self._ending.items()):
            if self._is_attached(boot_id):
                del self._ending[boot_id]
            elif recorder.boot_is_recorded(boot_id):
                store.end_node(boot_id, how, now())
                self._kept.forget(boot_id)
                del self._ending[boot_id]

    def _back_off(self, error: Exception) -> None:
        trouble = redact_text(str(error) or type(error).__name__)
        if self._trouble is None:
            text = "The ledger does not take events; they wait in %s: %s"
            logger.error(text, self._directory, trouble, exc_info=not isinstance(error, JobledgerError))
        self._trouble = trouble
        self._close_ledger()
        self._backoff = min(_BACKOFF_LIMIT, (self._backoff or 0.1) * 2)
        self._retry_at = time.monotonic() + self._backoff

    def _recovered(self) -> None:
        if self._trouble is not None:
            logger.info("The ledger takes events again")
        self._trouble = None
        self._backoff = 0.0


def _pause_after(shipped: int, seconds: float) -> float:
    """A pause while events come gathers them into fewer transactions; a backlog needs none."""
    if shipped >= BATCH_BYTES // 2:
        return 0.0
    return min(_LONGEST_PAUSE, max(_LEAST_PAUSE, _PAUSE_RATIO * seconds)) if shipped else _IDLE_INTERVAL


def main() -> int:
    """Run the agent of ``JOBLEDGER_DATA_DIR`` in the background; return when it listens, or when one runs already."""
    try:
        settings = load_settings()
        lock = _take_lock(settings.journal_dir / "agent.lock")
        if lock is None:
            return 0
        _allow_many_clients()
        agent = Agent(settings, lock)
    except (JobledgerError, OSError) as error:
        print(f"The recording agent cannot start: {error}", file=sys.stderr)
        return 1
    if os.fork() != 0:
        os._exit(0)
    _live(agent, settings)
    return 0


def _live(agent: Agent, settings: Settings) -> None:
    _log_to(settings.data_dir / "agent.log")
    signal.signal(signal.SIGTERM, agent.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        agent.run()
    except Exception:
        logger.exception("The agent stops because of an error of its own")
        raise
    finally:
        agent.close()


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
