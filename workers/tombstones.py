"""The ids in the broker that no node may start: the deny set, and a node's copy of it.

A tombstone outlives the decision, because copies of a message can still surface. The set is ordered by the broker's
own clock at the moment of entry, so that a node asks only for what is new.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from ..errors import BrokerUnavailable
from .broker import Broker

logger = logging.getLogger("jobledger.fence")

KEY: Final = "jobledger:tombstones"
#: Seconds between two questions for news, and how old the last answer may be before a start asks for itself.
NEWS_INTERVAL: Final = 1.0
STALE_AFTER: Final = 2.5
#: Seconds that a start waits for a broker that delivered the job and now does not answer.
PATIENCE: Final = 5.0
_CHUNK: Final = 5_000
_OVERLAP_MICROSECONDS: Final = 1_000_000

_ADD = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
for index = 1, #ARGV do
  redis.call('ZADD', KEYS[1], 'NX', now, ARGV[index])
end
return now
"""
_PRUNE = """
local time = redis.call('TIME')
return redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. (time[1] - ARGV[1]) * 1000000)
"""


class Tombstones:
    """The deny set in the broker. Every method raises ``BrokerUnavailable``."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._key = broker.key(KEY)

    def add(self, job_ids: Sequence[str]) -> None:
        """Put ids into the set; one that is there keeps its place."""
        for start in range(0, len(job_ids), _CHUNK):
            self._add(job_ids[start : start + _CHUNK])

    def _add(self, job_ids: Sequence[str]) -> None:
        self._broker.ask(lambda client: client.eval(_ADD, 1, self._key, *job_ids))

    def holds(self, job_id: str) -> bool:
        """Whether the id is in the set."""
        return self._broker.ask(lambda client: client.zscore(self._key, job_id)) is not None

    def count(self) -> int:
        """Return the size of the set."""
        return int(self._broker.ask(lambda client: client.zcard(self._key)))

    def prune(self, ttl: int) -> int:
        """Remove ids that are older than ``ttl`` seconds; return how many."""
        return int(self._broker.ask(lambda client: client.eval(_PRUNE, 1, self._key, ttl)))

    def since(self, score: float) -> tuple[list[str], float]:
        """Return the ids that came at or after ``score``, and the score of the newest."""
        found: list[str] = []
        newest = score
        while True:
            page = self._page(score, len(found))
            found.extend(_text(job_id) for job_id, _ in page)
            newest = max([newest, *(entered for _, entered in page)])
            if len(page) < _CHUNK:
                return found, newest

    def _page(self, score: float, offset: int) -> list[tuple[Any, float]]:
        page: list[tuple[Any, float]] = self._broker.ask(
            lambda client: client.zrangebyscore(self._key, score, "+inf", start=offset, num=_CHUNK, withscores=True)
        )
        return page


class Fence:
    """A node's copy of the deny set, kept fresh by a thread of its own.

    ``denies`` is called by the node's main loop for each job; it asks the broker itself when the copy is stale. On a
    broker that is not Redis there is no set: only what ``add`` brings is denied, and every other job runs.
    ``renew`` is called with each question, for what a broker that lost its data must be told again.
    """

    def __init__(self, app: Any, renew: Callable[[Broker], object] | None = None) -> None:
        self._broker = Broker(app)
        self._has_set = self._broker.is_redis
        self._renew = renew
        self._watched = Tombstones(self._broker)
        self._asked = Tombstones(Broker(app))
        self._ids: set[str] = set()
        self._newest = 0.0
        self._fresh_at = float("-inf")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="jobledger-fence", daemon=True)

    def start(self) -> None:
        """Load the whole set, then keep asking for news; a broker that is away leaves the copy stale."""
        if self._has_set:
            self._refresh()
            self._thread.start()

    def stop(self) -> None:
        """Stop asking."""
        self._stopping.set()

    def add(self, job_ids: Iterable[str]) -> None:
        """Deny ids at once: what a cancel command brings before the set does."""
        self._ids.update(job_ids)

    def denies(self, job_id: str) -> bool:
        """Whether the job must not start.

        Raises:
            BrokerUnavailable: when the copy is stale and the broker does not answer for ``PATIENCE`` seconds.
        """
        if job_id in self._ids:
            return True
        if not self._has_set or time.monotonic() - self._fresh_at < STALE_AFTER:
            return False
        return self._ask_now(job_id)

    def _ask_now(self, job_id: str) -> bool:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self._asked.holds(job_id)
            except BrokerUnavailable:
                if time.monotonic() > deadline:
                    raise
                self._stopping.wait(0.1)

    def _watch(self) -> None:
        while not self._stopping.wait(NEWS_INTERVAL):
            self._refresh()

    def _refresh(self) -> None:
        asked_at = time.monotonic()
        try:
            if self._renew is not None and not self._stopping.is_set():
                self._renew(self._broker)
            ids, newest = self._watched.since(max(0.0, self._newest - _OVERLAP_MICROSECONDS))
        except BrokerUnavailable as error:
            logger.debug("The deny list could not be read: %s", error)
            return
        self._ids.update(ids)
        self._newest = newest
        self._fresh_at = asked_at


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
