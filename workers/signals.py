"""Turns Celery's signals into recorded events.

Which process each signal fires in, and what it means, is Celery 5.7's behaviour as measured: the publisher sends the
publish signals; a worker's main process receives, and sees deaths and time limits; a pool child runs. Handlers cost
microseconds, open no connection and never raise.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery import signals
from celery.exceptions import Ignore

from ..errors import JobCancelled
from ..history.event import EventKind, now
from ..history.job import Evidence, FailureKind, JobEnd, JobFacts, JobStatus
from ..history.snapshot import SnapshotVault
from . import message
from .cancellation import CancelToken, use_error_type
from .job_context import JobContext, enter_job, leave_job, running_job
from .log_handler import JobLogHandler
from .message import HEADER, JobHeader, MessageBody, key_of
from .recording import JobRecorder, error_fields, own_end, result_reference
from .run_board import RunSlot, RunState, open_slot
from .runs import RunKey
from .worker_node import this_node

logger = logging.getLogger("jobledger.signals")


class CancelledInCelery(JobCancelled, Ignore):  # type: ignore[misc]
    """``JobCancelled`` in the shape that Celery neither retries nor reports as a failure."""


def never_raise(handler: Callable[..., None]) -> Callable[..., None]:
    """Log what a handler raises: history must never hurt a job."""

    @functools.wraps(handler)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            handler(*args, **kwargs)
        except Exception:
            logger.exception("Jobledger could not record %s", handler.__name__)

    return guarded


class SignalHandlers:
    """The handlers of one process; connected once, strongly."""

    def __init__(
        self,
        recorder: JobRecorder,
        vault: Callable[[], SnapshotVault | None],
        default_priority: Callable[[], int | None],
    ) -> None:
        self._recorder = recorder
        self._vault = vault
        self._default_priority = default_priority
        self._slots: dict[str, RunSlot] = {}
        self._log_handler = JobLogHandler(recorder.settings)

    def connect(self) -> None:
        """Connect every handler; handlers that Celery held weakly would vanish."""
        use_error_type(CancelledInCelery)
        for name in (
            "before_task_publish",
            "after_task_publish",
            "task_received",
            "task_prerun",
            "task_postrun",
            "task_failure",
            "task_retry",
            "task_revoked",
            "task_unknown",
        ):
            handler = never_raise(getattr(self, name))
            getattr(signals, name).connect(handler, weak=False, dispatch_uid=f"jobledger.{name}")

    # -- publishing

    def before_task_publish(
        self, sender: str = "", body: Any = None, headers: dict[str, Any] | None = None, **message_facts: Any
    ) -> None:
        """A message is about to go out: remember the job, and say so in its header."""
        self._give_priority(**message_facts)
        if headers is None or "id" not in headers:
            return
        header = self._outgoing_header(headers)
        headers[HEADER] = message.header_value(msgspec.structs.replace(header, known=True))
        if header.submitted:
            return
        facts, snapshot = None, None
        if not header.known:
            facts, snapshot = self._capture(
                sender, lambda: message.body_of_publish(sender, body, headers, *_destination(**message_facts)), headers
            )
        key = key_of(headers["id"], headers)
        is_noted = self._recorder.note(EventKind.PUBLISHING, key, "before_task_publish", facts=facts, snapshot=snapshot)
        if not is_noted:
            # This disk is full: whoever takes the message is to record the job.
            headers[HEADER] = message.header_value(header)

    def _give_priority(self, properties: dict[str, Any] | None = None, **_: Any) -> None:
        """Celery's default priority reaches only what it sends by a task of its own; the rest Redis serves first."""
        if properties is not None and properties.get("priority") is None:
            properties["priority"] = self._default_priority()

    def _outgoing_header(self, headers: dict[str, Any]) -> JobHeader:
        """Drop what belongs to the attempt before; a task that replaces itself makes a new attempt."""
        header = msgspec.structs.replace(message.read_header(headers), run=None)
        retries = int(headers.get("retries") or 0)
        job = running_job()
        if job is not None and job.job_id != headers["id"] and message.read_header(headers).run is not None:
            # A task passed its own headers on to another job: what they say about the job is not about that one.
            return JobHeader()
        if job is not None and job.job_id == headers["id"]:
            job.replaced = job.retries == retries
            return msgspec.structs.replace(header, known=True, submitted=False, requeue=job.requeue + int(job.replaced))
        return msgspec.structs.replace(header, submitted=False) if retries else header

    def after_task_publish(self, headers: dict[str, Any] | None = None, **_: Any) -> None:
        """The broker took the message."""
        if headers is None or "id" not in headers or message.read_header(headers).submitted:
            return
        self._recorder.note(EventKind.PUBLISHED, key_of(headers["id"], headers), "after_task_publish")

    def _capture(
        self, task: str, read_body: Callable[[], MessageBody], headers: Mapping[str, Any]
    ) -> tuple[JobFacts, Any]:
        try:
            body = read_body()
        except (ValueError, TypeError, msgspec.DecodeError) as error:
            problem = f"its arguments are not JSON ({type(error).__name__})"
            grace = message.read_header(headers).grace
            return JobFacts(task=task, snapshot_problem=problem, cancel_grace=grace, **message.labels_of(headers)), None
        sealed = message.seal(body, self._vault(), self._recorder.settings.payload_limit)
        return message.facts_of(body, headers, sealed.problem), sealed.snapshot

    # -- a worker's main process

    def task_received(self, request: Any = None, **_: Any) -> None:
        """A node took a message; one that nobody recorded is recorded now, with its body."""
        request.was_received = True
        header = message.read_header(request.request_dict)
        if header.known:
            return
        facts, snapshot = self._capture(request.name, lambda: message.body_of_delivery(request), request.request_dict)
        self._recorder.note(
            EventKind.RECEIVED,
            key_of(request.id, request.request_dict),
            "task_received",
            facts=facts,
            snapshot=snapshot,
            worker_id=request.hostname,
        )

    def task_revoked(
        self,
        request: Any = None,
        terminated: bool = False,
        signum: Any = None,
        expired: bool = False,
        **_: Any,
    ) -> None:
        """Celery dropped or killed a job; a denial of our own is recorded by the node."""
        node = this_node()
        if node is not None and node.is_denying(request.id):
            return
        key = _key_of_context(request)
        if expired:
            self._end_from_main(
                key,
                Evidence.VERDICT,
                JobStatus.FAILED,
                "task_revoked",
                failure_kind=FailureKind.EXPIRED,
                error_message="It was not started before it expired",
            )
        elif terminated:
            run = node.run_of(key.job_id) if node is not None else None
            detail = (run.killed if run is not None else None) or f"its process was killed ({signum})"
            self._end_from_main(key, Evidence.DEATH, JobStatus.CANCELLED, "task_revoked", detail=detail)
        else:
            self._end_from_main(
                key, Evidence.VERDICT, JobStatus.CANCELLED, "task_revoked", detail="revoked before it started"
            )

    def task_unknown(self, name: str = "", id: str = "", message: Any = None, **_: Any) -> None:  # noqa: A002 - Celery's names
        """A worker has no such task, and rejected the message."""
        self._end_from_main(
            key_of(id, message.headers),
            Evidence.VERDICT,
            JobStatus.FAILED,
            "task_unknown",
            failure_kind=FailureKind.REJECTED,
            error_message=f"The worker has no task named {name!r}",
        )

    def _end_from_main(self, key: RunKey, evidence: Evidence, status: JobStatus, source: str, **fields: Any) -> None:
        node = this_node()
        run = node.run_of(key.job_id) if node is not None else None
        end = JobEnd(
            status=status,
            at=now(),
            requeue=key.requeue,
            retries=key.retries,
            evidence=evidence,
            run_id=run.run_id if run else None,
            worker_id=node.name if node else None,
            **fields,
        )
        self._recorder.note(EventKind.ENDED, key, source, run_id=end.run_id, worker_id=end.worker_id, end=end)

    # -- the process that runs the job

    def task_prerun(self, task_id: str = "", task: Any = None, **_: Any) -> None:
        """The job's function starts."""
        if task.request.is_eager:
            return
        header = message.read_header(vars(task.request))
        slot = self._open_slot(header)
        job = JobContext(
            task_id,
            requeue=header.requeue,
            retries=task.request.retries or 0,
            run_id=header.run.run_id if header.run else None,
            node=header.run.node if header.run else task.request.hostname,
            token=CancelToken(slot.is_cancelled) if slot else CancelToken(),
            notes=self._recorder,
        )
        enter_job(job)
        self._log_handler.attach()
        if slot is not None:
            self._slots[task_id] = slot
            slot.start()
        if header.run is not None:
            self._recorder.join_boot(header.run.boot_id)
        self._recorder.note_job(EventKind.STARTED, job, "task_prerun")
        job.started = time.monotonic()

    def _open_slot(self, header: JobHeader) -> RunSlot | None:
        if header.run is None or header.run.slot is None:
            return None
        try:
            return open_slot(header.run.board, header.run.slot)
        except OSError:
            return None

    def task_postrun(self, task_id: str = "", retval: Any = None, state: str | None = None, **_: Any) -> None:
        """The job's function ended; ``state`` is ``None`` when the process is being killed, which is not an end."""
        job = running_job()
        if job is None or job.job_id != task_id:
            return
        leave_job()
        job.close()
        match state:
            case "SUCCESS":
                self._end(
                    job,
                    own_end(JobStatus.COMPLETED, job, result_ref=result_reference(retval)),
                    "task_postrun",
                )
            case "IGNORED" if job.cancelled:
                detail = "it saw the cancel and stopped"
                self._end(job, own_end(JobStatus.CANCELLED, job, detail=detail), "task_postrun")
            case "IGNORED" if not job.replaced:
                self._end(
                    job,
                    own_end(JobStatus.COMPLETED, job, detail="its function raised Ignore"),
                    "task_postrun",
                )
        slot = self._slots.pop(task_id, None)
        if slot is not None and state not in (None, "REJECTED"):
            slot.state = RunState.ENDED

    def _end(self, job: JobContext, end: JobEnd, source: str) -> None:
        self._recorder.note_job(EventKind.ENDED, job, source, end=end)

    def task_retry(self, request: Any = None, reason: Any = None, **_: Any) -> None:
        """The attempt ended by an error, and Celery starts another one."""
        if request.is_eager:
            return
        error = getattr(reason, "exc", None) or reason
        self._recorder.note(
            EventKind.RETRYING,
            _key_of_context(request),
            "task_retry",
            text=error_fields(error, None).get("error_message"),
            next_attempt_at=_next_attempt(reason),
        )

    def task_failure(
        self, sender: Any = None, task_id: str = "", exception: Any = None, einfo: Any = None, **_: Any
    ) -> None:
        """The job failed: by its own error in the process that ran it, by a death or a limit in the main process."""
        if sender.request.is_eager:
            return
        job = running_job()
        stack = getattr(einfo, "traceback", None)
        if job is not None and job.job_id == task_id:
            self._record_own_failure(job, exception, stack)
        else:
            self._record_failure_seen_from_main(sender, task_id, exception, stack)

    def _record_own_failure(self, job: JobContext, error: BaseException, stack: str | None) -> None:
        if job.cancelled:
            end = own_end(JobStatus.CANCELLED, job, detail=f"told to stop, it ended by {type(error).__qualname__}")
        else:
            end = own_end(JobStatus.FAILED, job, **error_fields(error, FailureKind.EXCEPTION, stack))
        self._end(job, end, "task_failure")

    def _record_failure_seen_from_main(self, task: Any, task_id: str, error: BaseException, stack: str | None) -> None:
        node = this_node()
        run = node.run_of(task_id) if node is not None else None
        key = run.key if run is not None else _key_of_context(task.request, task_id)
        if run is not None and run.killed and isinstance(error, (WorkerLostError, Terminated)):
            self._end_from_main(key, Evidence.DEATH, JobStatus.CANCELLED, "task_failure", detail=run.killed)
            return
        evidence, kind = _seen_from_main(error)
        self._end_from_main(key, evidence, JobStatus.FAILED, "task_failure", **error_fields(error, kind, stack))


def _destination(
    properties: dict[str, Any] | None = None, routing_key: str | None = None, declare: Any = None, **_: Any
) -> tuple[int | None, str | None]:
    """The priority and the queue that a message goes out with."""
    queue = declare[0].name if declare else message.queue_of(routing_key)
    return (properties or {}).get("priority"), queue


def _seen_from_main(error: BaseException) -> tuple[Evidence, FailureKind]:
    if isinstance(error, TimeLimitExceeded):
        return Evidence.DEATH, FailureKind.TIME_LIMIT
    if isinstance(error, (WorkerLostError, Terminated)):
        return Evidence.DEATH, FailureKind.WORKER_LOST
    return Evidence.VERDICT, FailureKind.INTERNAL


def _next_attempt(reason: Any) -> datetime | None:
    """When Celery means to start the next attempt: its ``Retry`` says a moment or a number of seconds."""
    when = getattr(reason, "when", None)
    if isinstance(when, datetime):
        return when if when.tzinfo else None
    if isinstance(when, (int, float)):
        return datetime.fromtimestamp(time.time() + when, now().tzinfo)
    return None


def _key_of_context(context: Any, job_id: str | None = None) -> RunKey:
    """The attempt that a Celery task context speaks of."""
    return key_of(job_id or context.id, vars(context))
