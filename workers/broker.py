"""Connections of Jobledger's own to the broker: short timeouts, no retries, one for each thread."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import redis

from ..errors import BrokerUnavailable
from ..history.redaction import redact_text

Answer = TypeVar("Answer")

#: Seconds that one question to the broker may take.
TIMEOUT: Final = 1.0
_CREDENTIALS: Final = re.compile(r"//[^/@]*@")


class _Line(threading.local):
    connection: Any = None
    channel: Any = None


class Broker:
    """Asks the broker, over a connection that is made when it is first needed and again after every error.

    Only Redis and Valkey can hold what Jobledger keeps in the broker. Safe for threads: each has a connection of its
    own, for kombu's cannot be shared, and it goes with its thread. Not to be used over a fork.
    """

    def __init__(self, app: Any, timeout: float = TIMEOUT) -> None:
        self._app = app
        self._timeout = timeout
        self._line = _Line()

    @property
    def name(self) -> str:
        """The broker's address, without its credentials."""
        return _CREDENTIALS.sub("//", self._app.connection_for_write().as_uri())

    @property
    def is_redis(self) -> bool:
        """Whether the broker is Redis or Valkey."""
        return bool(self._app.connection_for_write().transport.driver_type == "redis")

    def ask(self, question: Callable[[Any], Answer]) -> Answer:
        """Return ``question(client)`` for a Redis client.

        Raises:
            BrokerUnavailable: when the broker does not answer in time, or is not Redis.
        """
        if not self.is_redis:
            raise BrokerUnavailable(f"{self.name} is not Redis or Valkey; Jobledger's deny list needs one of them.")
        try:
            return question(self._client())
        except self._errors() as error:
            self.close()
            raise BrokerUnavailable(f"The broker {self.name} does not answer: {_reason(error)}.") from error

    def connection(self) -> Any:
        """Return the kombu connection, connected now; raises ``BrokerUnavailable`` when that is not possible."""
        self.channel()
        return self._line.connection

    def channel(self) -> Any:
        """Return the kombu channel, connected now; what is published over it is not tried twice.

        Raises:
            BrokerUnavailable: when no connection can be made; then nothing was sent.
        """
        try:
            return self._connected_channel()
        except self._errors() as error:
            self.close()
            raise BrokerUnavailable(f"The broker {self.name} does not answer: {_reason(error)}.") from error

    def key(self, name: str) -> str:
        """Return the name of a key under the prefix that the application shares its server with."""
        prefix = (self._app.conf.broker_transport_options or {}).get("global_keyprefix", "")
        return f"{prefix}{name}"

    def priority_key(self, queue: str, level: int) -> str:
        """Return the key of the list that holds a queue's messages of one level."""
        return self.key(self.channel()._q_for_pri(queue, level))  # kombu has no public name for it

    def unacknowledged_key(self) -> str:
        """Return the key of the hash that holds what was delivered and not acknowledged."""
        return self.key(self.channel().unacked_key)

    def close(self) -> None:
        """Drop this thread's connection."""
        connection, self._line.connection, self._line.channel = self._line.connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.release()

    def _client(self) -> Any:
        """A client that leaves keys as they are: kombu's own prefixes them in some commands and not in others."""
        return redis.Redis(connection_pool=self._connected_channel().client.connection_pool)

    def _connected_channel(self) -> Any:
        if self._line.channel is None:
            options = {"socket_timeout": self._timeout, "socket_connect_timeout": self._timeout}
            self._line.connection = self._app.connection_for_write(
                connect_timeout=self._timeout, transport_options=options if self.is_redis else None
            )
            self._line.connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
            self._line.channel = self._line.connection.channel()
        return self._line.channel

    def _errors(self) -> tuple[type[BaseException], ...]:
        connection = self._line.connection or self._app.connection_for_write()
        return (*connection.connection_errors, *connection.channel_errors, OSError)


def _reason(error: BaseException) -> str:
    text = redact_text(" ".join(str(error).split())).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
