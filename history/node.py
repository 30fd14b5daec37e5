"""A node as the ledger knows it: one worker main process, from its boot to its end."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec


class NodeEnd(StrEnum):
    """How a node's boot ended."""

    #: It said goodbye.
    STOPPED = "stopped"
    #: Its host's agent saw it go without a goodbye.
    DIED = "died"
    #: An operator declared its host gone for good.
    FORGOTTEN = "forgotten"


class Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One boot of a worker node."""

    boot_id: str
    #: Celery's node name, ``celery@host``.
    name: str
    host: str
    #: The journal directory that this boot writes to: one agent on one host serves it. See ``journal.home_of``.
    home: str = ""
    pid: int
    #: ``prefork``, ``threads`` or ``solo``.
    pool: str
    concurrency: int
    queues: tuple[str, ...] = ()
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    started_at: datetime
    #: Counts up while the node lives; only its change means anything, never its clock.
    heartbeat: int = 0
    #: When the ledger last saw the counter change, by the recorder's clock.
    heartbeat_at: datetime | None = None
    ended_at: datetime | None = None
    ended_how: NodeEnd | None = None
