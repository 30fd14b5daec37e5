"""Asks the nodes where jobs are, and says which answers are missing."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ..errors import BrokerUnavailable
from ..history.job_history_store import JobHistoryStore
from ..history.redaction import redact_text
from ..workers.broker import Broker
from ..workers.worker_node import JobWhereabouts
from .node_registry import listening_workers, registered_nodes

#: Seconds that nodes get to answer; a live one takes milliseconds.
REPLY_TIMEOUT: Final = 1.0


class Inquiry(msgspec.Struct, kw_only=True):
    """What the nodes answered about jobs."""

    #: For each job, where it was found; jobs that every node has said it does not have are missing.
    found: dict[str, dict[str, JobWhereabouts]] = {}
    #: Up to where the journals of the answering boots are written.
    journals: dict[str, int] = {}
    #: The boots that answered.
    boots: set[str] = set()
    #: Nodes that may have a job and did not say.
    silent: list[str] = []
    #: Workers that are alive and cannot say, because Jobledger is not installed there.
    foreign: list[str] = []

    @property
    def is_complete(self) -> bool:
        """Whether every worker that could have a job has answered."""
        return not self.silent and not self.foreign

    def whereabouts(self, job_id: str) -> set[JobWhereabouts]:
        """Return the places where a job was found."""
        return set(self.found.get(job_id, {}).values())

    def obstacle(self) -> str | None:
        """Return the sentence that says who is waited for."""
        if self.silent:
            return f"node {', '.join(sorted(self.silent))} does not answer"
        if self.foreign:
            return f"worker {', '.join(sorted(self.foreign))} runs without Jobledger and cannot be asked"
        return None


def ask_nodes(app: Any, broker: Broker, store: JobHistoryStore, command: str, job_ids: Sequence[str]) -> Inquiry:
    """Send a command about jobs to every worker of the broker, and wait for the answers.

    A registered node that says nothing may have the job, unless the ledger holds the end of its boot; a plain worker
    that says nothing is a name that nobody has taken off the broker.

    Raises:
        BrokerUnavailable: when the broker does not answer.
        HistoryUnavailable: when the ledger does not say which boots have ended.
    """
    registered = broker.ask(lambda client: registered_nodes(client, broker))
    ended = store.ended_boots([boot_id for boot_id in registered.values() if boot_id])
    alive = {name for name, boot_id in registered.items() if boot_id not in ended}
    others = broker.ask(lambda client: listening_workers(client, broker, app)) - registered.keys()
    replies = _broadcast(app, broker, command, job_ids, sorted(alive | others))
    inquiry = Inquiry(silent=sorted(alive - replies.keys()))
    for name, reply in replies.items():
        _take_answer(inquiry, name, reply)
    return inquiry


def _broadcast(
    app: Any, broker: Broker, command: str, job_ids: Sequence[str], names: list[str]
) -> dict[str, dict[str, Any]]:
    if not names:
        return {}
    try:
        replies = app.control.broadcast(
            command,
            arguments={"job_ids": list(job_ids)},
            destination=names,
            reply=True,
            timeout=REPLY_TIMEOUT,
            limit=len(names),
            connection=broker.connection(),
        )
    except (*app.connection_for_write().connection_errors, OSError) as error:
        broker.close()
        raise BrokerUnavailable(f"The nodes could not be asked: {redact_text(str(error))}") from error
    if len(replies or ()) < len(names):
        # A call that timed out leaves a blocking read behind on its connection.
        broker.close()
    return {name: reply for answer in replies or () for name, reply in answer.items()}


def _take_answer(inquiry: Inquiry, name: str, reply: dict[str, Any]) -> None:
    if "jobs" not in reply:
        inquiry.foreign.append(name)
        return
    inquiry.boots.add(reply["boot_id"])
    inquiry.journals.update(reply["journals"])
    for job_id, where in reply["jobs"].items():
        with contextlib.suppress(ValueError):
            if (place := JobWhereabouts(where)) is not JobWhereabouts.ABSENT:
                inquiry.found.setdefault(job_id, {})[name] = place
