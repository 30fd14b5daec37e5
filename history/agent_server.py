"""The agent's side of its socket: who is connected, and what they say."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from .agent_protocol import MESSAGE_LIMIT, Message
from .node import Node

logger = logging.getLogger("jobledger.agent")

#: Connections that wait while the agent is busy with the ledger, at most.
_WAITING_CLIENTS: Final = 1_024
#: What the selector says of the listener and of the bell, and not of a client.
_LISTENER: Final = "listener"
_BELL: Final = "bell"


@dataclass(eq=False)
class Client:
    """A connected process, from its connection to its end."""

    connection: socket.socket
    unread: bytes = b""
    boot_id: str | None = None
    node: Node | None = None
    #: Whether it names another ledger than the agent's.
    is_foreign: bool = False
    said_goodbye: bool = False
    is_gone: bool = False


class AgentServer:
    """Listens on a unix socket that only this user can reach; owns the socket and its connections until ``close``."""

    def __init__(self, path: Path) -> None:
        self.clients: set[Client] = set()
        self._path = path
        self._decode = msgspec.json.Decoder(Message).decode
        self._selector = selectors.DefaultSelector()
        self._gone: list[Client] = []
        self._bell, self._rope = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._bell, selectors.EVENT_READ, _BELL)
        self._listener = self._listen()
        self._inode = path.stat().st_ino

    def messages(self, timeout: float) -> Iterator[tuple[Client, Message]]:
        """Wait for clients, ``timeout`` seconds at most, and yield what they say."""
        for key, _ in self._selector.select(timeout):
            if key.data is _LISTENER:
                self._accept()
            elif key.data is _BELL:
                os.read(self._bell, 4_096)
            else:
                yield from self._read(key.data)

    def wake(self) -> None:
        """End the wait of ``messages``; may be called by any thread, and by a signal's handler."""
        with contextlib.suppress(OSError):
            os.write(self._rope, b".")

    def say(self, client: Client, message: dict[str, Any]) -> None:
        """Send a message; a client that does not take it is dropped, to one that is gone nothing is said."""
        if client.is_gone:
            return
        try:
            client.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._drop(client)

    def take_gone(self) -> list[Client]:
        """Return the clients that went since the last call."""
        gone, self._gone = self._gone, []
        return gone

    def listen_again_if_removed(self) -> None:
        """Make a new socket where somebody deleted the file, or nobody would ever get through again."""
        if self._is_listening():
            return
        self._selector.unregister(self._listener)
        self._listener.close()
        self._listener = self._listen()
        self._inode = self._path.stat().st_ino

    def close(self) -> None:
        """Drop the clients and give up the socket."""
        for client in list(self.clients):
            self._drop(client)
        if self._is_listening():
            self._path.unlink(missing_ok=True)
        self._listener.close()
        self._selector.close()
        os.close(self._bell)
        os.close(self._rope)

    def _listen(self) -> socket.socket:
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self._path))
            self._path.chmod(0o600)
            listener.listen(_WAITING_CLIENTS)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        self._selector.register(listener, selectors.EVENT_READ, _LISTENER)
        return listener

    def _is_listening(self) -> bool:
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                client = Client(connection)
                self.clients.add(client)
                self._selector.register(connection, selectors.EVENT_READ, client)

    def _read(self, client: Client) -> Iterator[tuple[Client, Message]]:
        try:
            data = client.connection.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, client.unread = (client.unread + data).split(b"\n")
        for line in lines:
            message = self._understand(line)
            if message is not None:
                yield client, message
        if not data or len(client.unread) > MESSAGE_LIMIT:
            self._drop(client)

    def _understand(self, line: bytes) -> Message | None:
        try:
            message: Message = self._decode(line)
        except (ValueError, RecursionError) as error:
            logger.error("A client said something that cannot be understood: %s", error)
            return None
        return message

    def _drop(self, client: Client) -> None:
        if client not in self.clients:
            return
        self.clients.discard(client)
        client.is_gone = True
        self._selector.unregister(client.connection)
        client.connection.close()
        self._gone.append(client)
