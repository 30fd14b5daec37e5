"""What workers and broker say now, without ever waiting for them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable
from typing import Any, Final

from .live_facts import LiveSnapshot
from .live_poller import LivePoller

logger = logging.getLogger("jobledger.live")

#: Seconds after the last look when the poller stops.
IDLE_AFTER: Final = 10.0
#: The longest wait of a one-shot caller, in seconds, and how old a snapshot may be that it takes without waiting.
LONGEST_WAIT: Final = 0.3
FRESH_FOR: Final = 1.5
_SLICE: Final = 0.1


class LiveView:
    """The newest facts about jobs, nodes and queues, kept fresh by a thread while somebody looks.

    Starts nothing until the first look, uses a connection of its own, and never raises: what cannot be known is
    missing from the snapshot. May be used from any thread; not to be carried over a fork.
    """

    def __init__(self, app: Any, queues: Iterable[str] = (), *, idle_after: float = IDLE_AFTER) -> None:
        """Watch an application's broker; ``queues`` are watched besides the configured and the consumed ones."""
        self._app = app
        self._queues = frozenset(queues)
        self._idle_after = idle_after
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._looked_at = float("-inf")
        self._snapshot: LiveSnapshot | None = None
        self._closed = False

    def look(self, wait: float = 0.0) -> LiveSnapshot | None:
        """Return the newest snapshot at once; ``None`` means that nothing is known yet.

        Args:
            wait: Seconds that a one-shot caller waits for one refresh, 0.3 at most; a fresh snapshot is not waited for.
        """
        with self._changed:
            if self._closed:
                return None
            self._looked_at = time.monotonic()
            self._start()
            if wait > 0:
                self._changed.wait_for(self._is_fresh, min(wait, LONGEST_WAIT))
            return self._snapshot

    @property
    def is_polling(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None

    def close(self) -> None:
        """Stop asking, and give the connection back; a broker that hangs delays this by about a second."""
        with self._changed:
            self._closed = True
            self._snapshot = None
            thread = self._thread
        if thread is not None:
            thread.join(3)

    def _is_fresh(self) -> bool:
        return self._snapshot is not None and time.monotonic() - self._snapshot.taken_at <= FRESH_FOR

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._poll, name="jobledger-live-view", daemon=True)
            self._thread.start()

    def _poll(self) -> None:
        try:
            with contextlib.closing(LivePoller(self._app, self._queues)) as poller:
                self._poll_while_wanted(poller)
        except Exception:  # a broken application makes everything unknown; the next look tries again
            logger.exception("The live view has stopped")
            self._leave()

    def _poll_while_wanted(self, poller: LivePoller) -> None:
        while self._is_wanted():
            snapshot = poller.step(_SLICE)
            if snapshot is not None:
                self._show(snapshot)

    def _is_wanted(self) -> bool:
        with self._changed:
            if not self._closed and time.monotonic() - self._looked_at <= self._idle_after:
                return True
            self._leave()
            return False

    def _leave(self) -> None:
        with self._changed:
            self._thread = None
            self._snapshot = None

    def _show(self, snapshot: LiveSnapshot) -> None:
        with self._changed:
            self._snapshot = snapshot
            self._changed.notify_all()
