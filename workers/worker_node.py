"""A node: one worker main process, with its fence, its runs, and its part in every cancel."""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from ..errors import BrokerUnavailable
from ..history.event import EventKind, now
from ..history.ids import new_id
from ..history.job import Evidence, FailureKind, JobEnd, JobStatus
from ..history.journal import journal_ends
from ..history.node import Node
from .broker import Broker
from .message import HEADER, RunHeader, header_value, key_of, read_header
from .recording import JobRecorder
from .run_board import RunBoard, RunState
from .runs import Run, RunKey, Runs
from .tombstones import Fence

logger = logging.getLogger("jobledger.node")

#: The hash in the broker in which nodes register before they consume: who must be asked about a job.
NODES_KEY: Final = "jobledger:nodes"
#: Takes a boot off that hash; a node that started meanwhile under the same name keeps its place.
FORGET_NODE: Final = """
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if entry and cjson.decode(entry)['boot_id'] == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
"""
_REAP_INTERVAL: Final = 0.05
_REAPS: Final = 200


class JobWhereabouts(StrEnum):
    """A node's answer about one job."""

    #: The node does not have it.
    ABSENT = "absent"
    #: It waits here for a slot, its time or its rate limit, and will be dropped.
    WAITING = "waiting"
    #: The pool has it; it can no longer be dropped, only stopped.
    HANDED_OVER = "handed_over"
    #: Its function runs.
    RUNNING = "running"


class WorkerNode:
    """Admits each job that a worker is about to start, and stops those that were cancelled.

    Lives in the worker's main process; everything but the fence's thread and the agent link runs in its main loop.
    """

    def __init__(self, worker: Any, recorder: JobRecorder) -> None:
        self._worker = worker
        self._recorder = recorder
        self._settings = recorder.settings
        self._board = RunBoard(recorder.journal_dir / f"{recorder.boot_id}.board")
        self._runs = Runs(self._board, ttl=self._settings.tombstone_ttl)
        self._fence = Fence(worker.app, self._renew_registration)
        self._denying: str | None = None
        #: Jobs that were cancelled between their hand-over and their start.
        self._cancelled_on_the_way: set[str] = set()

    @property
    def name(self) -> str:
        """Celery's node name."""
        return str(self._worker.hostname)

    # -- from start to goodbye

    def start(self) -> None:
        """Attach to the agent, register in the broker, load the deny list; called before the worker consumes."""
        self._recorder.start_node(self._describe())
        self._warn_without_redis()
        self._register()
        self._fence.start()

    def stop(self) -> None:
        """Say goodbye, after the pool has ended; waits for the receipt 5 s at most."""
        self._fence.stop()
        if not self._recorder.goodbye():
            logger.warning(
                "The ledger has not confirmed the last events yet; they are in %s", self._recorder.journal_dir
            )
        self._unregister()
        self._board.remove()

    def _describe(self) -> Node:
        from importlib.metadata import version

        return Node(
            boot_id=self._recorder.boot_id,
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            pool=self.pool_name,
            concurrency=int(self._worker.concurrency),
            queues=tuple(sorted(self._worker.app.amqp.queues.consume_from)),
            versions={
                "jobledger": version("jobledger"),
                "celery": version("celery"),
                "python": platform.python_version(),
            },
            started_at=now(),
        )

    @property
    def pool_name(self) -> str:
        """``prefork``, ``threads``, ``solo`` or the name of another pool's module."""
        module = type(self._worker.pool).__module__.rsplit(".", 1)[-1]
        return {"thread": "threads"}.get(module, module)

    def _warn_without_redis(self) -> None:
        broker = Broker(self._worker.app)
        if not broker.is_redis:
            logger.warning("%s is not Redis or Valkey: jobs run and are recorded, but cannot be cancelled", broker.name)

    def _register(self) -> None:
        self._tell_broker(lambda client, key: client.hset(key, self.name, self._entry))

    @property
    def _entry(self) -> bytes:
        return msgspec.json.encode({"boot_id": self._recorder.boot_id, "home": self._recorder.home})

    def _renew_registration(self, broker: Broker) -> None:
        """In the fence's thread: a broker that lost its data must know again who is to be asked."""
        broker.ask(lambda client: client.hsetnx(broker.key(NODES_KEY), self.name, self._entry))

    def _unregister(self) -> None:
        self._tell_broker(lambda client, key: client.eval(FORGET_NODE, 1, key, self.name, self._recorder.boot_id))

    def _tell_broker(self, question: Any) -> None:
        broker = Broker(self._worker.app)
        if not broker.is_redis:
            return
        try:
            broker.ask(lambda client: question(client, broker.key(NODES_KEY)))
        except BrokerUnavailable as error:
            logger.warning("The node list in the broker could not be written: %s", error)
        finally:
            broker.close()

    # -- each delivery

    def admit(self, request: Any) -> bool:
        """Decide whether a request may go to the pool, which it then does at once.

        Raises one of the request's connection errors when a broker that cannot be asked makes that impossible: the
        worker then connects again, and the message comes back.
        """
        key = key_of(request.id, request.request_dict)
        if self._runs.is_copy(key, redelivered=bool(request.delivery_info.get("redelivered"))):
            self._drop_duplicate(request, key)
            return False
        if self._is_denied(request):
            self._deny(request, key)
            return False
        self._hand_over(request, key)
        return True

    def _is_denied(self, request: Any) -> bool:
        try:
            return self._fence.denies(request.id)
        except BrokerUnavailable as error:
            raise request.connection_errors[0](str(error)) from error

    def _drop_duplicate(self, request: Any, key: RunKey) -> None:
        logger.warning("Job %s was delivered a second time; the copy is dropped", request.id)
        self._note(EventKind.DUPLICATE_DROPPED, key, None)
        request.drop_copy()

    def _deny(self, request: Any, key: RunKey) -> None:
        end = JobEnd(
            status=JobStatus.CANCELLED,
            at=now(),
            requeue=key.requeue,
            retries=key.retries,
            evidence=Evidence.VERDICT,
            worker_id=self.name,
            detail=f"denied by {self.name} before it started",
        )
        self._note(EventKind.ENDED, key, None, end=end)
        self._denying = request.id
        try:
            request.drop_denied()
        finally:
            self._denying = None

    def is_denying(self, job_id: str) -> bool:
        """Whether Celery announces right now what this node has recorded itself."""
        return self._denying == job_id

    def _hand_over(self, request: Any, key: RunKey) -> None:
        header = read_header(request.request_dict)
        run = self._runs.hand_over(key, new_id(), request, header.grace)
        run_header = RunHeader(
            run_id=run.run_id,
            boot_id=self._recorder.boot_id,
            node=self.name,
            board=str(self._board.path),
            slot=run.slot.index if run.slot else None,
        )
        request.request_dict[HEADER] = header_value(msgspec.structs.replace(header, run=run_header))
        self._note(EventKind.HANDED_OVER, key, run.run_id)

    def accepted(self, request: Any) -> None:
        """A process took a request: a run that was cancelled on its way there is stopped without grace."""
        if request.id not in self._cancelled_on_the_way:
            return
        self._cancelled_on_the_way.discard(request.id)
        run = self._runs.of_job(request.id)
        if run is not None:
            self._force(run, "cancelled on its way to a process, which was killed")

    def ended(self, request: Any) -> Run | None:
        """The main process knows that a run has ended, and its end is recorded."""
        return self._runs.end(key_of(request.id, request.request_dict))

    def take_back(self, request: Any) -> None:
        """A request's message goes back to the queue."""
        self._runs.forget(key_of(request.id, request.request_dict))

    def give_up(self, request: Any) -> None:
        """A job handed its message back that was acknowledged when it started: nobody will deliver it again."""
        key = key_of(request.id, request.request_dict)
        run = self._runs.of_job(request.id)
        end = JobEnd(
            status=JobStatus.FAILED,
            at=now(),
            requeue=key.requeue,
            retries=key.retries,
            evidence=Evidence.DEATH,
            run_id=run.run_id if run else None,
            worker_id=self.name,
            failure_kind=FailureKind.REJECTED,
            error_message="It raised Reject(requeue=True), but its message was acknowledged when it started; "
            "set acks_late on the task",
        )
        self._note(EventKind.ENDED, key, end.run_id, end=end)

    def dropped_by_pool(self, job_ids: Collection[str]) -> None:
        """The pool dropped jobs that no process had begun to read: their next delivery is no duplicate."""
        for run in self._runs.not_started(job_ids):
            self._runs.forget(run.key)

    def run_of(self, job_id: str) -> Run | None:
        """Return the live run of a job."""
        return self._runs.of_job(job_id)

    # -- cancel

    def locate(self, job_ids: Sequence[str]) -> dict[str, Any]:
        """Answer where jobs are, and up to where this boot has written: what a barrier needs."""
        return self._answer({job_id: self._whereabouts(job_id) for job_id in job_ids})

    def cancel(self, job_ids: Sequence[str]) -> dict[str, Any]:
        """Deny jobs from now on, tell the running ones to stop, and answer where each was."""
        self._fence.add(job_ids)
        found = {job_id: self._whereabouts(job_id) for job_id in job_ids}
        for job_id, where in found.items():
            if where in (JobWhereabouts.HANDED_OVER, JobWhereabouts.RUNNING):
                self._deliver(job_id)
        return self._answer(found)

    def _answer(self, jobs: dict[str, JobWhereabouts]) -> dict[str, Any]:
        return {
            "boot_id": self._recorder.boot_id,
            "jobs": {job_id: str(where) for job_id, where in jobs.items()},
            "journals": journal_ends(self._recorder.journal_dir, self._recorder.boot_id),
            "dropped": self._recorder.dropped,
        }

    def _whereabouts(self, job_id: str) -> JobWhereabouts:
        from celery.worker import state

        run = self._runs.of_job(job_id)
        if run is not None:
            return JobWhereabouts.RUNNING if run.state is RunState.STARTED else JobWhereabouts.HANDED_OVER
        return JobWhereabouts.WAITING if job_id in state.requests else JobWhereabouts.ABSENT

    def _deliver(self, job_id: str) -> None:
        run = self._runs.of_job(job_id)
        if run is None or run.is_cancelled or run.killed:
            return
        if run.slot is not None:
            run.slot.cancel()
        obstacle = None if self._can_kill else f"a job in a pool of {self.pool_name} cannot be interrupted"
        self._note(EventKind.CANCEL_DELIVERED, run.key, run.run_id, text=obstacle)
        if run.state is RunState.STARTED:
            grace = self._settings.cancel_grace if run.grace is None else run.grace
            why = f"told to stop, it did not within {grace:g} s, so its process was killed"
            self._worker.timer.call_after(grace, self._force, (run, why))
        else:
            self._cancelled_on_the_way.add(job_id)

    @property
    def _can_kill(self) -> bool:
        return self.pool_name == "prefork"

    def _force(self, run: Run, why: str) -> None:
        """Kill the process of a run, only while it still runs it."""
        pid = run.request.worker_pid
        if not self._can_kill or run.killed or not pid or not self._runs.is_in(run, pid):
            return
        number = signal.SIGKILL if self._settings.cancel_signal == "KILL" else signal.SIGTERM
        run.killed = f"{why} ({number.name})"
        logger.warning("Job %s did not stop in time; process %d gets %s", run.key.job_id, pid, number.name)
        self._worker.pool.terminate_job(pid, number)
        self._reap(run, _REAPS)

    def _reap(self, run: Run, tries: int) -> None:
        """Let the pool notice the death now; by itself it looks every five seconds only."""
        if tries > 0 and self._runs.is_live(run):
            self._worker.pool.maintain_pool()
            self._worker.timer.call_after(_REAP_INTERVAL, self._reap, (run, tries - 1))

    def _note(self, kind: EventKind, key: RunKey, run_id: str | None, **fields: Any) -> None:
        self._recorder.note(kind, key, "node", run_id=run_id, worker_id=self.name, **fields)


_node: WorkerNode | None = None


def this_node() -> WorkerNode | None:
    """Return the node that this process is the main process of, if it is one."""
    return _node if _node is not None and _node_pid == os.getpid() else None


_node_pid = 0


def become(node: WorkerNode | None) -> None:
    """Make this process a node's main process."""
    global _node, _node_pid  # noqa: PLW0603
    _node = node
    _node_pid = os.getpid()
