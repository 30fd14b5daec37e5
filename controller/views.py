"""Pages, nodes and queues as the faces show them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime

import msgspec

from ..history.node import Node
from ..workers.priorities import priority_name
from .job_view import JobViewModel
from .live_facts import LiveSnapshot, LiveState, NodeAnswer


class JobViewPage(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, newest first, and the cursor to the next page; ``None`` on the last one."""

    jobs: tuple[JobViewModel, ...]
    next_cursor: str | None = None


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker: a node of ours with its boot, or a plain Celery worker that answers."""

    name: str
    #: ``answering``, ``silent`` or ``unknown``: no answer is never an idle worker.
    state: str
    #: Seconds since the question that it answered last.
    age: float | None = None
    host: str | None = None
    pid: int | None = None
    pool: str | None = None
    concurrency: int | None = None
    queues: tuple[str, ...] = ()
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None
    boot_id: str | None = None
    versions: dict[str, str] = {}
    #: The jobs that it runs; unknown while it is silent.
    running: tuple[str, ...] | None = None


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """A queue; its depth is unknown while the broker does not answer."""

    name: str
    depth: int | None = None
    #: Waiting messages by what people call the level.
    levels: dict[str, int] = {}


def worker_views(nodes: Iterable[Node], live: LiveSnapshot | None) -> list[WorkerView]:
    """Return the workers of the ledger and of the live view, by name."""
    answers = dict(live.nodes) if live is not None else {}
    views = [_node_view(node, answers.pop(node.name, None), live) for node in nodes]
    views += [_plain_view(answer, live) for answer in answers.values() if live is not None and answer.boot_id is None]
    return sorted(views, key=lambda view: view.name)


def _node_view(node: Node, answer: NodeAnswer | None, live: LiveSnapshot | None) -> WorkerView:
    state = _state(answer)
    return WorkerView(
        name=node.name,
        state=state,
        age=answer.age(time.monotonic()) if answer else None,
        host=node.host,
        pid=node.pid,
        pool=node.pool,
        concurrency=node.concurrency,
        queues=node.queues,
        started_at=node.started_at,
        heartbeat_at=node.heartbeat_at,
        boot_id=node.boot_id,
        versions=node.versions,
        running=_running(node.name, live) if state == "answering" else None,
    )


def _plain_view(answer: NodeAnswer, live: LiveSnapshot | None) -> WorkerView:
    return WorkerView(
        name=answer.node,
        state=_state(answer),
        age=answer.age(time.monotonic()),
        queues=answer.queues,
        running=_running(answer.node, live),
    )


def _state(answer: NodeAnswer | None) -> str:
    if answer is None:
        return "unknown"
    return "silent" if answer.is_silent(time.monotonic()) else "answering"


def _running(node: str, live: LiveSnapshot | None) -> tuple[str, ...]:
    if live is None:
        return ()
    return tuple(
        job_id
        for job_id, facts in sorted(live.facts.items())
        if any(fact.node == node and fact.state is LiveState.ACTIVE for fact in facts)
    )


def queue_views(live: LiveSnapshot | None) -> list[QueueView]:
    """Return the queues that the broker spoke of, by name."""
    if live is None or live.depths is None:
        return []
    return [_queue_view(name, levels) for name, levels in sorted(live.depths.items())]


def _queue_view(name: str, levels: dict[int, int]) -> QueueView:
    named = {priority_name(level): count for level, count in sorted(levels.items())}
    return QueueView(name=name, depth=sum(levels.values()), levels=named)
