"""Who may consume from the broker: nodes register before they do, plain workers only listen for commands."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..workers.broker import Broker
from ..workers.worker_node import FORGET_NODE, NODES_KEY

_BINDINGS: Final = "_kombu.binding."
_BINDING_SEPARATOR: Final = "\x06\x16"


def registered_nodes(client: Any, broker: Broker) -> dict[str, str | None]:
    """Return the names of the registered nodes, each with its boot."""
    entries = client.hgetall(broker.key(NODES_KEY))
    return {_text(name): _boot_id(entry) for name, entry in entries.items()}


def forget_node(client: Any, broker: Broker, name: str, boot_id: str) -> bool:
    """Remove a node from the registry, unless another boot has taken its name; return whether it was removed."""
    return bool(client.eval(FORGET_NODE, 1, broker.key(NODES_KEY), name, boot_id))


def listening_workers(client: Any, broker: Broker, app: Any) -> set[str]:
    """Return the names under which workers, also plain ones, listen for commands; some may be long gone."""
    mailbox = f"{app.conf.control_exchange}.pidbox"
    members = client.smembers(broker.key(f"{_BINDINGS}{mailbox}"))
    queues = {_text(member).rsplit(_BINDING_SEPARATOR, 1)[-1] for member in members}
    return {queue.removesuffix(f".{mailbox}") for queue in queues if queue.endswith(f".{mailbox}")}


def _boot_id(entry: bytes) -> str | None:
    try:
        return str(msgspec.json.decode(entry)["boot_id"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
