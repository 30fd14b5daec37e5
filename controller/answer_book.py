"""Who was asked what and when, and what each node said last."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ..history.event import now as utc_now
from ..workers.message import queue_of
from .live_facts import SILENT_AFTER, LiveFact, LiveState, NodeAnswer

QUEUES: Final = "active_queues"
#: The questions of a round. In this order a job that moves on between two of them is seen twice, never missed.
QUESTIONS: Final = (LiveState.RESERVED.value, LiveState.ACTIVE.value)
#: Heavy or slow to change; asked now and then.
RARE_QUESTIONS: Final = (QUEUES, LiveState.SCHEDULED.value)
#: Rounds whose late answers still count, and seconds after which a silent worker that is not registered is forgotten.
_ROUNDS_KEPT: Final = 8
_FORGET_AFTER: Final = 60.0

#: What a node said to one question: facts, or the names of its queues.
Said = tuple[LiveFact, ...] | tuple[str, ...]


class _Round:
    """Questions that were asked together, and the answers so far; several workers may answer under one name."""

    def __init__(self, number: int, questions: Collection[str], awaited: Collection[str]) -> None:
        self.number = number
        self.at = time.monotonic()
        self.asked_at = utc_now()
        self.questions = tuple(questions)
        self.awaited = set(awaited)
        self.answers: dict[str, dict[str, list[Said]]] = defaultdict(lambda: defaultdict(list))

    def workers(self, node: str) -> int:
        """How many workers of this name have answered every question."""
        return min(len(self.answers[node][question]) for question in self.questions)


class _Page:
    """What is known about one node."""

    def __init__(self) -> None:
        self.boot_id: str | None = None
        self.registered = False
        self.workers = 1
        self.round = 0
        self.at: float | None = None
        self.asked_at: datetime | None = None
        self.said: dict[str, Said] = {}

    def take(self, asked: _Round, answers: Mapping[str, list[Said]]) -> None:
        self.round, self.at, self.asked_at = asked.number, asked.at, asked.asked_at
        for question in asked.questions:
            together: Any = tuple(item for said in answers[question] for item in said)
            self.said[question] = together

    def answers_at(self, now: float) -> bool:
        return self.at is not None and now - self.at <= SILENT_AFTER


class AnswerBook:
    """Keeps the newest answer of each node to each question. Pure bookkeeping: it asks nobody."""

    def __init__(self) -> None:
        self._pages: dict[str, _Page] = {}
        self._rounds: dict[int, _Round] = {}
        self._last = 0

    def register(self, boots: Mapping[str, str | None]) -> None:
        """Note which nodes are registered in the broker; one that says goodbye is forgotten."""
        for name in [name for name, page in self._pages.items() if page.registered and name not in boots]:
            del self._pages[name]
        for name, boot_id in boots.items():
            page = self._pages.setdefault(name, _Page())
            page.registered, page.boot_id = True, boot_id

    def targets(self) -> list[str]:
        """Return the nodes that are worth a question every time: those that answer, and new ones."""
        now = time.monotonic()
        new = {name for name, page in self._pages.items() if page.registered and not self._was_asked(name)}
        return sorted(new | {name for name, page in self._pages.items() if page.answers_at(now)})

    def _was_asked(self, name: str) -> bool:
        return self._pages[name].at is not None or any(name in asked.awaited for asked in self._rounds.values())

    def open_round(self, questions: Collection[str], awaited: Collection[str]) -> int:
        """Note that questions are asked now, and who should answer; return the round's number."""
        self._settle_for_fewer()
        self._forget_the_gone()
        self._last += 1
        self._rounds[self._last] = _Round(self._last, questions, awaited)
        self._rounds.pop(self._last - _ROUNDS_KEPT, None)
        return self._last

    def _settle_for_fewer(self) -> None:
        """Fewer workers of one name answered than before: what these said counts now."""
        asked = self._rounds.get(self._last)
        if asked is None:
            return
        for name in list(asked.answers):
            page = self._pages.get(name)
            if page is not None and 1 <= asked.workers(name) < page.workers:
                page.workers = asked.workers(name)
                page.take(asked, asked.answers[name])

    def _forget_the_gone(self) -> None:
        oldest = time.monotonic() - _FORGET_AFTER
        for name, page in list(self._pages.items()):
            if not page.registered and (page.at or 0.0) < oldest:
                del self._pages[name]

    def take(self, number: int, question: str, node: str, reply: Any) -> bool:
        """Note a node's reply to one question of a round; return whether the node's answer is complete with it.

        Replies to rounds that are long over and replies that make no sense are dropped.
        """
        asked = self._rounds.get(number)
        if asked is None or question not in asked.questions or not isinstance(reply, list):
            return False
        asked.answers[node][question].append(tuple(_said(asked, question, node, reply)))
        return self._take_complete(asked, node)

    def _take_complete(self, asked: _Round, node: str) -> bool:
        page = self._pages.get(node) or _Page()
        if asked.workers(node) < page.workers or asked.number < page.round:
            return False
        self._pages[node] = page
        page.workers = asked.workers(node)
        page.take(asked, asked.answers[node])
        return True

    def is_settled(self) -> bool:
        """Whether everybody who should answer the newest round has done so."""
        answered = {name for name, page in self._pages.items() if page.round >= self._last}
        return self._last == 0 or self._rounds[self._last].awaited <= answered

    def has_heard(self) -> bool:
        """Whether any node has ever answered."""
        return any(page.at is not None for page in self._pages.values())

    def nodes(self) -> dict[str, NodeAnswer]:
        """Return when each node answered last."""
        return {
            name: NodeAnswer(
                node=name,
                at=page.at,
                asked_at=page.asked_at,
                boot_id=page.boot_id,
                queues=tuple(sorted({said for said in page.said.get(QUEUES, ()) if isinstance(said, str)})),
                workers=page.workers,
            )
            for name, page in self._pages.items()
        }

    def facts(self) -> dict[str, tuple[LiveFact, ...]]:
        """Return the newest facts by job."""
        found: dict[str, tuple[LiveFact, ...]] = {}
        for page in self._pages.values():
            for said in page.said.values():
                for fact in said:
                    if isinstance(fact, LiveFact):
                        found[fact.job_id] = (*found.get(fact.job_id, ()), fact)
        return found

    def queues(self) -> set[str]:
        """Return the queues that nodes consume."""
        return {queue for answer in self.nodes().values() for queue in answer.queues}


def _said(asked: _Round, question: str, node: str, reply: list[Any]) -> Iterator[Any]:
    for item in reply:
        if not isinstance(item, dict):
            continue
        if question == QUEUES:
            yield from [str(item["name"])] if "name" in item else []
        elif (request := _request_of(item)) is not None:
            yield _fact(asked, LiveState(question), node, request, item)


def _request_of(item: dict[str, Any]) -> dict[str, Any] | None:
    request = item.get("request", item)
    return request if isinstance(request, dict) and isinstance(request.get("id"), str) else None


def _fact(asked: _Round, state: LiveState, node: str, request: dict[str, Any], item: dict[str, Any]) -> LiveFact:
    """Read what Celery tells about a request; its arguments end here."""
    delivery = request.get("delivery_info")
    delivery = delivery if isinstance(delivery, dict) else {}
    started = request.get("time_start")
    return LiveFact(
        job_id=request["id"],
        state=state,
        node=node,
        at=asked.at,
        asked_at=asked.asked_at,
        task=_text_or_none(request.get("name")),
        queue=queue_of(_text_or_none(delivery.get("routing_key"))),
        priority=delivery["priority"] if isinstance(delivery.get("priority"), int) else None,
        started_at=datetime.fromtimestamp(started, UTC) if isinstance(started, (int, float)) else None,
        due_at=_moment(item.get("eta")),
    )


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _moment(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment is not None and moment.tzinfo is not None else None
