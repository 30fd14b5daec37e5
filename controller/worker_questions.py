"""Celery's own inspect questions, asked without waiting for the answers.

``app.control.inspect`` waits its whole timeout as soon as one worker is silent, publishes over the application's
producer pool, and leaves a blocking read behind when it times out. Here one consumer stays on one reply queue of our
own connection: answers are read as they come, and a silent worker delays nobody.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from ..errors import BrokerUnavailable
from ..history.redaction import redact_text
from ..workers.broker import Broker

#: What each question is asked with; without ``safe`` a worker would send all arguments of its active jobs.
_ARGUMENTS: Final[dict[str, dict[str, Any]]] = {"active": {"safe": True}}


class WorkerReply(NamedTuple):
    """What one worker said to one question."""

    ticket: str
    node: str
    reply: Any


class WorkerQuestions:
    """Sends questions to workers and reads what they answer; both may raise ``BrokerUnavailable``.

    Owns a connection that nobody else may use: a read that waits for answers is always under way on it. Belongs to
    one thread.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._broker = Broker(app)
        self._channel: Any = None
        self._consumer: Any = None
        self._replies: list[WorkerReply] = []
        self._mailbox = app.control.Mailbox(
            app.conf.control_exchange,
            type="fanout",
            accept=app.conf.accept_content,
            serializer=app.conf.task_serializer,
            reply_queue_expires=app.conf.control_queue_expires,
        )

    def ask(self, question: str, ticket: str, destination: Sequence[str] | None) -> None:
        """Ask the named workers, or with ``None`` all of them; the answers carry the ticket."""
        self._connect()
        message = {
            "method": question,
            "arguments": _ARGUMENTS.get(question, {}),
            "destination": None if destination is None else list(destination),
            "pattern": None,
            "matcher": None,
            "ticket": ticket,
            "reply_to": {"exchange": self._mailbox.reply_exchange.name, "routing_key": self._mailbox.oid},
        }
        with self._broker_errors():
            self._app.amqp.Producer(self._channel, auto_declare=False).publish(
                message,
                exchange=self._mailbox.exchange.name,
                declare=[self._mailbox.exchange],
                serializer=self._mailbox.serializer,
                headers={"clock": self._mailbox.clock.forward()},
            )

    def answers(self, seconds: float) -> list[WorkerReply]:
        """Return what has been answered, waiting up to ``seconds`` for a first answer."""
        self._connect()
        deadline = time.monotonic() + seconds
        with self._broker_errors():
            while not self._replies and (left := deadline - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    self._broker.connection().drain_events(timeout=left)
        replies, self._replies = self._replies, []
        return replies

    def abandon(self) -> None:
        """Drop the connection without a word to the broker, which removes the reply queue in its time."""
        self._channel = self._consumer = None
        self._broker.close()

    def close(self) -> None:
        """Remove the reply queue from the broker, and drop the connection."""
        channel, consumer = self._channel, self._consumer
        if consumer is not None:
            with contextlib.suppress(Exception):
                consumer.cancel()
                self._mailbox.reply_queue(channel).delete()
                # kombu would wait up to a second for an answer to its last read, which is nobody's any more.
                channel._in_poll = None
        self.abandon()

    def _connect(self) -> None:
        channel = self._broker.channel()
        if channel is self._channel:
            return
        with self._broker_errors():
            consumer = self._app.amqp.Consumer(
                channel,
                [self._mailbox.reply_queue],
                accept=self._mailbox.accept,
                no_ack=True,
                callbacks=[self._take],
                on_decode_error=lambda *_: None,
            )
            consumer.consume()
        self._channel, self._consumer = channel, consumer

    def _take(self, body: Any, message: Any) -> None:
        self._mailbox.clock.adjust(message.headers.get("clock") or 0)
        ticket = message.headers.get("ticket")
        if isinstance(ticket, str) and isinstance(body, dict):
            self._replies.extend(WorkerReply(ticket, str(node), reply) for node, reply in body.items())

    @contextlib.contextmanager
    def _broker_errors(self) -> Iterator[None]:
        connection = self._app.connection_for_write()
        try:
            yield
        except (*connection.connection_errors, *connection.channel_errors, OSError) as error:
            self.abandon()
            raise BrokerUnavailable(f"The workers cannot be asked: {redact_text(str(error))}") from error
