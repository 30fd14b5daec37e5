"""The queues as they lie in the broker: finding, counting and removing messages."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

import msgspec

from ..workers.broker import Broker
from ..workers.priorities import PRIORITY_STEPS

#: Messages that one call of the script looks at: it bounds the time that the broker serves nobody else.
_CHUNK: Final = 500

# Walks a piece of one list. Ids also occur in chains and arguments, so a message counts only when its parsed header
# says so; the cheap pattern search only decides which messages are parsed.
_WALK: Final = """
local wanted = {}
for index = 4, #ARGV do wanted[ARGV[index]] = true end
local messages = redis.call('LRANGE', KEYS[1], ARGV[2], ARGV[3])
local found = {}
local removed = 0
for _, text in ipairs(messages) do
  local candidate = false
  for id in string.gmatch(text, '"id": ?"([^"]+)"') do
    if wanted[id] then candidate = true end
  end
  if candidate then
    local message = cjson.decode(text)
    local headers = message['headers']
    if type(headers) == 'table' and wanted[headers['id']] then
      local gone = 1
      if ARGV[1] == 'remove' then gone = redis.call('LREM', KEYS[1], 1, text) end
      if gone > 0 then
        if ARGV[1] == 'remove' then removed = removed + 1 end
        local info = (message['properties'] or {})['delivery_info'] or {}
        local redelivered = (info['redelivered'] or headers['redelivered']) and 1 or 0
        local ours = headers['jobledger']
        local requeue = type(ours) == 'table' and ours['requeue'] or 0
        table.insert(found, {headers['id'], redelivered, headers['retries'] or 0, requeue})
      end
    end
  end
end
return {#messages, removed, found}
"""


class QueuedCopy(msgspec.Struct, frozen=True):
    """One message of a job, found in a queue."""

    job_id: str
    redelivered: bool
    retries: int
    requeue: int

    @property
    def is_untouched(self) -> bool:
        """Whether nobody can have started it: it was never delivered, and is the first attempt."""
        return not self.redelivered and self.retries == 0 and self.requeue == 0


class BrokerQueues:
    """Looks into the lists of a Redis broker. Every method raises ``BrokerUnavailable``."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    @property
    def are_visible(self) -> bool:
        """Whether the broker lets anybody look into its queues, which only Redis and Valkey do."""
        return self._broker.is_redis

    def find(self, job_ids: Collection[str], queues: Iterable[str]) -> list[QueuedCopy]:
        """Return the copies of jobs that wait in the queues, in one pass; best effort while messages move."""
        return self._walk("find", job_ids, queues)

    def remove(self, job_ids: Collection[str], queues: Iterable[str]) -> list[QueuedCopy]:
        """Remove the copies of jobs that wait in the queues, in one pass, and return them."""
        return self._walk("remove", job_ids, queues)

    def depths(self, queues: Iterable[str]) -> dict[str, dict[int, int]]:
        """Return how many messages wait in each queue, by level; empty levels are left out."""
        names = list(queues)
        keys = [self._broker.priority_key(queue, level) for queue in names for level in PRIORITY_STEPS]
        counts = iter(self._broker.ask(lambda client: _lengths(client, keys)))
        depths = {queue: {level: next(counts) for level in PRIORITY_STEPS} for queue in names}
        return {queue: {level: count for level, count in levels.items() if count} for queue, levels in depths.items()}

    def unacknowledged(self) -> set[str]:
        """Return the ids of the messages that were delivered and not acknowledged, by any worker."""
        key = self._broker.unacknowledged_key()
        deliveries = self._broker.ask(lambda client: client.hvals(key))
        return {job_id for delivery in deliveries if (job_id := _id_in(delivery)) is not None}

    def _walk(self, mode: str, job_ids: Collection[str], queues: Iterable[str]) -> list[QueuedCopy]:
        copies: list[QueuedCopy] = []
        for queue in queues:
            for level in PRIORITY_STEPS:
                copies.extend(self._walk_list(mode, job_ids, self._broker.priority_key(queue, level)))
        return copies

    def _walk_list(self, mode: str, job_ids: Collection[str], key: str) -> list[QueuedCopy]:
        """Walk from the newest message to the oldest: what is pushed meanwhile moves the rest towards the walk."""
        copies: list[QueuedCopy] = []
        position = 0
        while True:
            seen, removed, found = self._walk_chunk(mode, job_ids, key, position)
            copies.extend(_copy(row) for row in found)
            if seen < _CHUNK:
                return copies
            position += seen - removed

    def _walk_chunk(self, mode: str, job_ids: Collection[str], key: str, position: int) -> tuple[int, int, list[Any]]:
        arguments = (mode, position, position + _CHUNK - 1, *job_ids)
        answer: tuple[int, int, list[Any]] = self._broker.ask(lambda client: client.eval(_WALK, 1, key, *arguments))
        return answer


def _id_in(delivery: bytes) -> str | None:
    """The job of a delivery; none for a message that is not of Celery's present protocol."""
    try:
        return str(msgspec.json.decode(delivery)[0]["headers"]["id"])
    except (msgspec.DecodeError, LookupError, TypeError):
        return None


def _copy(row: list[Any]) -> QueuedCopy:
    job_id, redelivered, retries, requeue = row
    text = job_id.decode() if isinstance(job_id, bytes) else str(job_id)
    return QueuedCopy(text, bool(redelivered), int(retries), int(requeue))


def _lengths(client: Any, keys: list[str]) -> list[int]:
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.llen(key)
    return [int(length) for length in pipeline.execute()]
