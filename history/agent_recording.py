"""The agent's recording side: a thread that ships the journals and tells the ledger about the nodes.

It has a thread of its own because a ledger can keep it waiting for long, and the agent's clients must be answered all
the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from msgspec.structs import replace

from ..errors import EventRefused, HistoryUnavailable, JobledgerError
from ..settings import Settings
from .agent_server import Client
from .event import now
from .job_history_store import JobHistoryStore
from .journal import home_of, journal_files
from .journal_watch import JournalWatch
from .kept_nodes import KeptNodes
from .node import Node, NodeEnd
from .recorder import BATCH_BYTES, Recorder
from .redaction import redact_text

logger = logging.getLogger("jobledger.agent")

#: Seconds from one look at the journals to the next while events come: the first ones, and those of a long stream.
_SHORTEST_ROUND: Final = 0.005
_LONGEST_ROUND: Final = 0.035
#: How many jobs searches learn of at once, and how many seconds lie between while events come.
_INDEXED_AT_ONCE: Final = 250
_INDEXING_INTERVAL: Final = 0.1
#: Seconds for what is left when the agent is told to stop.
_DRAIN: Final = 3.0
_BACKOFF_LIMIT: Final = 5.0
#: Seconds that a starting agent gives nodes of before to attach, before it looks which of them are gone.
_ADOPTION_GRACE: Final = 1.0
#: Seconds of one piece of work after which the ledger counts as one that does not answer.
_HANGING: Final = 6.0


class Debt(NamedTuple):
    """A receipt that is owed: what must be recorded first, and the client's number of the question."""

    client: Client
    ends: dict[str, int]
    number: int


class AgentRecording:
    """Owns the ledger and the recorder; its thread runs from ``start`` to ``stop``, all else may be called by another.

    ``is_ours`` says whether the directory is still this agent's. ``on_receipts`` is called by the thread when
    ``take_receipts`` has something.
    """

    def __init__(
        self, settings: Settings, kept: KeptNodes, is_ours: Callable[[], bool], on_receipts: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._directory = settings.journal_dir
        self._home = home_of(self._directory)
        self._kept = kept
        self._is_ours = is_ours
        self._on_receipts = on_receipts
        self._watch = JournalWatch(self._directory)
        self._store: JobHistoryStore | None = None
        self._recorder: Recorder | None = None
        self._lock = threading.Lock()
        self._attached: set[str] = set()
        #: Boots that have ended and whose journals are not all recorded yet.
        self._ending: dict[str, NodeEnd] = {}
        self._unannounced: deque[Node] = deque(kept.all())
        self._debts: deque[Debt] = deque()
        self._receipts: deque[tuple[Client, int]] = deque()
        self._started = time.monotonic()
        self._adopted = False
        self._stopping = False
        self._next_heartbeat = 0.0
        self._next_indexing = 0.0
        self._backoff = 0.0
        self._retry_at = 0.0
        self._trouble: str | None = None
        self._busy_since: float | None = None
        self._round = 0.0
        self._thread = threading.Thread(target=self._run, name="jobledger-recording", daemon=True)

    def start(self) -> None:
        """Begin to record."""
        self._thread.start()

    def stop(self) -> None:
        """Record the rest for a moment, then end; what the ledger does not take stays in the journals."""
        self._stopping = True
        self._watch.ring()
        self._thread.join(2 * _DRAIN)

    def is_alive(self) -> bool:
        """Whether it records, or tries to."""
        return self._thread.is_alive()

    def has_work(self) -> bool:
        """Whether a journal or a node's end waits."""
        return bool(self._ending or journal_files(self._directory))

    def backlog(self) -> int:
        """Return how many bytes wait to be recorded, as far as it is known."""
        recorder = self._recorder
        return recorder.backlog() if recorder else sum(file.size() for file in journal_files(self._directory))

    def trouble(self) -> str | None:
        """Return why events wait, if they do."""
        busy_since = self._busy_since
        if busy_since is not None and time.monotonic() - busy_since >= _HANGING:
            return f"The ledger has not answered for {time.monotonic() - busy_since:.0f} s."
        return self._trouble or (self._recorder.obstacle() if self._recorder else None)

    # -- what the clients' side tells

    def welcome(self, node: Node) -> None:
        """Announce a node, and send its heartbeats until it is seen off."""
        with self._lock:
            self._attached.add(node.boot_id)
            self._ending.pop(node.boot_id, None)
        self._unannounced.append(node)
        self._watch.ring()

    def see_off(self, boot_id: str, how: NodeEnd) -> None:
        """Record the end of a boot, as soon as all that it wrote is recorded."""
        with self._lock:
            self._attached.discard(boot_id)
            self._ending[boot_id] = how
        self._watch.ring()

    def owe(self, debt: Debt) -> None:
        """Note that a client waits for a receipt."""
        self._debts.append(debt)
        self._watch.ring()

    def take_receipts(self) -> list[tuple[Client, int]]:
        """Return the receipts that are due now, each once."""
        return [self._receipts.popleft() for _ in range(len(self._receipts))]

    # -- its thread

    def _run(self) -> None:
        while not self._stopping:
            self._watch.arm()
            began = time.monotonic()
            shipped = self._work()
            self._rest(shipped, time.monotonic() - began)
        self._drain()
        self._close_ledger()

    def _rest(self, shipped: int, seconds: float) -> None:
        if self._trouble is not None:
            self._watch.wait_for_bell(self._retry_at - time.monotonic())
        elif shipped:
            self._watch.wait_for_bell(self._pause_after(shipped, seconds))
        else:
            self._round = 0.0
            self._watch.wait_for_news(self._next_heartbeat - time.monotonic())
        ended = self._watch.take_ended()
        if self._recorder is not None:
            self._recorder.expect_ends(ended)

    def _pause_after(self, shipped: int, seconds: float) -> float:
        """A pause gathers what comes into fewer transactions, and leaves the processors to the jobs."""
        if shipped >= BATCH_BYTES // 2:
            return 0.0
        self._round = min(_LONGEST_ROUND, max(_SHORTEST_ROUND, 2 * self._round))
        return min(_LONGEST_ROUND, max(seconds, self._round - seconds))

    def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN
        while self._work() and time.monotonic() < deadline:
            pass

    def _work(self) -> int:
        """Do what the ledger needs; return how many bytes of journals were recorded."""
        if time.monotonic() < self._retry_at or not self._is_ours():
            return 0
        self._busy_since = time.monotonic()
        try:
            shipped = self._record()
        except Exception as error:  # noqa: BLE001 - whatever it is, the journals wait, and the next try may succeed
            self._back_off(error)
            return 0
        finally:
            self._busy_since = None
        return shipped

    def _record(self) -> int:
        recorder, store = self._connect()
        self._announce(store)
        self._send_heartbeats(store)
        shipped = recorder.ship()
        self._adopt_orphans(store)
        self._end_boots(recorder, store)
        self._recovered()
        self._write_receipts(recorder)
        self._index_for_search(store, shipped)
        return shipped

    def _connect(self) -> tuple[Recorder, JobHistoryStore]:
        if self._store is None or self._recorder is None:
            from .sql_store import SqlJobHistoryStore

            if not self._is_ours():
                # Opening would make the ledger, and with it the directory that somebody has just removed.
                raise HistoryUnavailable(f"the directory {self._directory} is no longer this agent's")
            self._store = SqlJobHistoryStore.open(self._settings.ledger_url)
            self._recorder = Recorder(self._directory, self._store)
        return self._recorder, self._store

    def _close_ledger(self) -> None:
        """The next try opens it anew: a file that was removed is made again, one that was read-only is written."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def _announce(self, store: JobHistoryStore) -> None:
        while self._unannounced:
            node = self._unannounced[0]
            try:
                store.record_node(replace(node, home=self._home))
            except EventRefused as refusal:
                logger.error("The node %r cannot be recorded: %s", node.name, refusal)
            self._unannounced.popleft()

    def _send_heartbeats(self, store: JobHistoryStore) -> None:
        moment = time.monotonic()
        if moment < self._next_heartbeat:
            return
        with self._lock:
            boots = set(self._attached)
        if boots:
            store.record_heartbeats(boots, now())
        self._next_heartbeat = moment + self._settings.heartbeat_interval

    def _write_receipts(self, recorder: Recorder) -> None:
        """In the order of each client's questions: a receipt stands for all that he asked for before."""
        unpaid: set[Client] = set()
        for _ in range(len(self._debts)):
            debt = self._debts.popleft()
            if debt.client.is_gone:
                continue
            if debt.client not in unpaid and recorder.is_recorded(debt.ends):
                self._receipts.append((debt.client, debt.number))
            else:
                unpaid.add(debt.client)
                self._debts.append(debt)
        if self._receipts:
            self._on_receipts()

    def _adopt_orphans(self, store: JobHistoryStore) -> None:
        """Once after the start: find this home's nodes that went while no agent watched."""
        if self._adopted or time.monotonic() - self._started < _ADOPTION_GRACE:
            return
        nodes = self._kept.all() + [node for node in store.list_nodes() if node.home == self._home]
        with self._lock:
            for node in nodes:
                if node.boot_id not in self._attached:
                    self._ending.setdefault(node.boot_id, NodeEnd.DIED)
        self._adopted = True

    def _end_boots(self, recorder: Recorder, store: JobHistoryStore) -> None:
        with self._lock:
            ending = list(self._ending.items())
        for boot_id, how in ending:
            if recorder.boot_is_recorded(boot_id):
                store.end_node(boot_id, how, now())
                self._kept.forget(boot_id)
                with self._lock:
                    self._ending.pop(boot_id, None)

    def _index_for_search(self, store: JobHistoryStore, shipped: int) -> None:
        """What searches need is left to quiet moments; while there are none, a little of it is done now and then."""
        if shipped and time.monotonic() < self._next_indexing:
            return
        indexed = store.index_for_search(_INDEXED_AT_ONCE)
        self._next_indexing = time.monotonic() + _INDEXING_INTERVAL
        if indexed and not shipped:
            self._watch.ring()

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
