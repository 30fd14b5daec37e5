"""Asks workers and broker again and again; one thread's work, see ``live_view``."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from ..errors import BrokerUnavailable
from ..workers.broker import Broker
from ..workers.priorities import PRIORITY_STEPS
from .answer_book import QUESTIONS, RARE_QUESTIONS, AnswerBook
from .live_facts import LiveSnapshot
from .node_registry import listening_workers, registered_nodes
from .worker_questions import WorkerQuestions

logger = logging.getLogger("jobledger.live")

#: Seconds between two rounds of questions, and between two that go to every worker, also to silent and unknown ones.
INTERVAL: Final = 1.0
WIDE_INTERVAL: Final = 5.0
#: The longest pause after a failure.
LONGEST_PAUSE: Final = 5.0
#: Seconds that a round waits for the last node before what came so far is shown.
SETTLE_TIME: Final = 0.2


class BrokerState(NamedTuple):
    """What the broker says about itself."""

    #: The registered nodes, by name.
    boots: dict[str, str | None]
    #: The names under which workers listen for questions; some may be long gone.
    listeners: set[str]
    depths: dict[str, dict[int, int]]


class LivePoller:
    """Keeps what is known about now; ``step`` does the next piece of work and never raises.

    Owns one short-timeout connection to the broker. Belongs to one thread.
    """

    def __init__(self, app: Any, queues: Iterable[str] = ()) -> None:
        self._broker = Broker(app)
        self._questions = WorkerQuestions(app)
        self._book = AnswerBook()
        self._app = app
        self._queues = {*app.amqp.queues, *queues}
        self._depths: dict[str, dict[int, int]] | None = None
        self._depths_at: float | None = None
        self._unknown_since: float | None = None
        self._problem: str | None = None
        self._pause = INTERVAL
        self._round_at = self._due_at = self._wide_at = float("-inf")
        self._has_news = False

    def step(self, seconds: float) -> LiveSnapshot | None:
        """Work or wait for about ``seconds``; return a snapshot when there is something new to show."""
        try:
            self._work(seconds)
        except BrokerUnavailable as error:
            self._fail(str(error))
        except Exception:  # a strange answer or a defect must not end the view: it becomes "unknown", and is logged
            logger.exception("The workers could not be asked")
            self._fail("the workers could not be asked; the log says why")
        return self._snapshot_of_news()

    def close(self) -> None:
        """Give the connection back."""
        if self._unknown_since is None:
            self._questions.close()
        self._broker.close()

    def _work(self, seconds: float) -> None:
        if time.monotonic() >= self._due_at:
            self._ask()
        elif self._unknown_since is None:
            self._listen_or_ask_anew(seconds)
        else:
            time.sleep(seconds)

    def _ask(self) -> None:
        self._due_at = time.monotonic() + self._pause
        try:
            self._ask_once()
        except BrokerUnavailable:
            if self._unknown_since is not None:
                raise
            # After a restart of the broker both connections are dead, whichever of them was found out first.
            self._drop_connections()
            self._ask_once()
        self._succeed()

    def _ask_once(self) -> None:
        state = self._broker.ask(self._read_broker)
        self._depths, self._depths_at = state.depths, time.monotonic()
        self._book.register(state.boots)
        self._open_round(state.listeners)

    def _read_broker(self, client: Any) -> BrokerState:
        keys = {
            self._broker.priority_key(queue, level): (queue, level)
            for queue in sorted(self._queues | self._book.queues())
            for level in reversed(PRIORITY_STEPS)
        }
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.llen(key)
        depths: dict[str, dict[int, int]] = {}
        for (queue, level), count in zip(keys.values(), pipeline.execute(raise_on_error=False), strict=True):
            if isinstance(count, int):
                depths.setdefault(queue, {})[level] = count
        boots = registered_nodes(client, self._broker)
        return BrokerState(boots, listening_workers(client, self._broker, self._app), depths)

    def _open_round(self, listeners: set[str]) -> None:
        targets = self._book.targets()
        wide = time.monotonic() >= self._wide_at
        if not (wide or targets):
            self._has_news = True
            return
        questions = (*RARE_QUESTIONS, *QUESTIONS) if wide else QUESTIONS
        # Until the first node has answered, everybody who may be alive is worth waiting for.
        number = self._book.open_round(questions, targets if self._book.has_heard() else {*targets, *listeners})
        self._round_at = time.monotonic()
        for question in questions:
            self._questions.ask(question, f"{number}:{question}", None if wide else targets)
        if wide:
            self._wide_at = time.monotonic() + WIDE_INTERVAL
        self._has_news = True

    def _listen(self, seconds: float) -> None:
        deadline = self._end_of_wait(time.monotonic(), seconds)
        while (left := deadline - time.monotonic()) > 0:
            for ticket, node, reply in self._questions.answers(left):
                number, _, question = ticket.partition(":")
                self._has_news |= self._book.take(int(number), question, node, reply)
            if self._has_news and self._is_settled():
                return

    def _listen_or_ask_anew(self, seconds: float) -> None:
        """A connection that breaks between two rounds says little: the next question shows who is there."""
        try:
            self._listen(seconds)
        except BrokerUnavailable:
            time.sleep(seconds)
            self._due_at = time.monotonic()

    def _end_of_wait(self, now: float, seconds: float) -> float:
        settled_at = self._round_at + SETTLE_TIME
        moments = [now + seconds, self._due_at, *([settled_at] if settled_at > now else [])]
        return min(moments)

    def _is_settled(self) -> bool:
        return self._book.is_settled() or time.monotonic() - self._round_at >= SETTLE_TIME

    def _succeed(self) -> None:
        self._unknown_since = self._problem = None
        self._pause = INTERVAL

    def _drop_connections(self) -> None:
        self._questions.abandon()
        self._broker.close()

    def _fail(self, problem: str) -> None:
        self._drop_connections()
        now = time.monotonic()
        if self._unknown_since is None:
            self._unknown_since = now
            self._pause = INTERVAL
        else:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._problem = problem
        self._due_at = now + self._pause
        self._wide_at = float("-inf")
        self._has_news = True

    def _snapshot_of_news(self) -> LiveSnapshot | None:
        if not self._has_news or (self._unknown_since is None and not self._is_settled()):
            return None
        self._has_news = False
        return LiveSnapshot(
            taken_at=time.monotonic(),
            facts=self._book.facts(),
            nodes=self._book.nodes(),
            depths=self._depths if self._unknown_since is None else None,
            depths_at=self._depths_at if self._unknown_since is None else None,
            unknown_since=self._unknown_since,
            problem=self._problem,
        )
