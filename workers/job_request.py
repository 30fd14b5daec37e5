"""The request class of every task: Celery asks it before each start, and tells it about each end."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker import state
from celery.worker.request import Request as CeleryRequest

from .worker_node import this_node

logger = logging.getLogger("jobledger.node")


class JobRequest(CeleryRequest):  # type: ignore[misc]
    """Adds the node's decision to Celery's own.

    Celery calls ``revoked`` once on receipt and once when it gives the job to the pool; only the second is the start.
    ``execute_using_pool`` and ``on_success`` are overridden by Celery's optimised subclass, so nothing may live there.
    """

    #: Set once Celery has announced the receipt: the next question is the start.
    was_received = False

    def revoked(self) -> bool:
        """Whether the job must not start."""
        if super().revoked():
            return True
        node = this_node()
        if node is None or not self.was_received:
            return False
        return not node.admit(self)

    def drop_denied(self) -> None:
        """Drop a denied request as Celery drops a revoked one.

        Acknowledged first: a result backend that is away must not keep the message.
        """
        self.acknowledge()
        try:
            self._announce_revoked("revoked", False, None, False)
        except Exception:
            logger.exception("The denial of job %s could not be stored in the result backend", self.id)
        self._already_revoked = True

    def drop_copy(self) -> None:
        """Drop a second delivery: nothing is announced, the first one decides."""
        self.acknowledge()
        state.task_ready(self)
        self._already_revoked = True

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """A process of the pool took the job."""
        super().on_accepted(pid, time_accepted)
        node = this_node()
        if node is not None:
            node.accepted(self)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """The job failed, or its process died."""
        node = this_node()
        try:
            return super().on_failure(exc_info, send_failed_event, return_ok)
        finally:
            if node is not None:
                node.ended(self)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The job ran longer than a limit."""
        super().on_timeout(soft, timeout)
        node = this_node()
        if node is not None and not soft:
            node.ended(self)

    def reject(self, requeue: bool = False) -> None:
        """Give the message up, or back to the queue."""
        node = this_node()
        if node is not None and requeue:
            if self.acknowledged:
                node.give_up(self)
            else:
                node.take_back(self)
        super().reject(requeue)


def request_class(base: type) -> type:
    """Return a request class that is both ours and the task's own."""
    if issubclass(base, JobRequest):
        return base
    if base is CeleryRequest:
        return JobRequest
    return type(f"Job{base.__name__}", (JobRequest, base), {})
