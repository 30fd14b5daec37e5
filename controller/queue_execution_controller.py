"""The only one, beside the leader, that publishes, removes and broadcasts."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self

from ..errors import BrokerUnavailable, InvalidJob, JobActionsDisabled
from ..history.event import EventKind, JobEvent, now
from ..history.job import Evidence, FailureKind, JobEnd, JobStatus
from ..history.job_history_store import JobHistoryStore, LeaseHold
from ..history.redaction import redact_text
from ..history.snapshot import SnapshotVault
from ..settings import Settings
from ..workers.broker import Broker
from ..workers.installation import install
from ..workers.message import HEADER, JobHeader, from_json, header_value
from ..workers.pipeline import PIPELINE_TASK, PipelineConfig
from .broker_queues import BrokerQueues
from .cancel_outcome import CancelOutcome
from .cancellation import Cancellation
from .ledger import open_ledger
from .retry import resubmission
from .submission import PreparedJob, Submission, prepare

logger = logging.getLogger("jobledger.controller")

#: Seconds that an ambiguous publishing is looked for in its queue.
_SETTLE_TIMEOUT: Final = 2.0


class QueueExecutionController:
    """Submits, cancels and retries jobs of one Celery application.

    Owns its connections to the broker; the store belongs to whoever passed it in. Safe for threads.
    """

    def __init__(
        self, app: Any, store: JobHistoryStore, settings: Settings, vault: SnapshotVault | None, broker: Broker
    ) -> None:
        self.app = app
        self.settings = settings
        self._store = store
        self._vault = vault
        self._broker = broker
        self._queues = BrokerQueues(broker)
        self._cancellation = Cancellation(app, store, broker)

    @classmethod
    def connect(cls, app: Any, settings: Settings | None = None) -> Self:
        """Return a controller for an application, with the ledger that its settings name.

        Raises:
            SettingsError, HistoryUnavailable: when a setting is wrong, or the ledger cannot be opened.
        """
        installation = install(app, settings)
        store = open_ledger(installation.settings)
        return cls(app, store, installation.settings, installation.vault, Broker(app))

    # -- submit

    def submit(
        self,
        task: str | Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> str:
        """Write a job to the ledger, publish it, and return its id; it can be read back at once.

        Args:
            task: The task, or its name.
            options: See ``Submission``: ``priority``, ``queue``, ``tags``, ``time_limit``, …

        Raises:
            InvalidJob: nothing was written or sent.
            HistoryUnavailable: nothing was sent.
            BrokerUnavailable: the job is in the ledger as FAILED (``dispatch``).
        """
        name = task if isinstance(task, str) else task.name
        return self.submit_many([Submission(task=name, args=args, kwargs=kwargs or {}, **options)])[0]

    def submit_many(self, submissions: Iterable[Submission]) -> list[str]:
        """Submit jobs one after the other, all of them checked before the first is written; return their ids.

        A job that was submitted before, with the same id and the same arguments, is left as it is: with an id of its
        own a caller may simply try again.
        """
        if self.app.conf.task_always_eager:
            raise InvalidJob("task", "task_always_eager is on, so nothing would be sent; call the task itself")
        prepared = [prepare(submission, self.app, self.settings, self._vault) for submission in submissions]
        for job in prepared:
            if not self._store.record_job_submission(job.record):
                self._require_same(job)
            elif not self._is_cancelled_already(job.job_id):
                self._publish(job)
        return [job.job_id for job in prepared]

    def submit_pipeline_job(self, config: PipelineConfig | Mapping[str, Any], **options: Any) -> str:
        """Check a pipeline, resolve its defaults, and submit it; raises like ``submit``."""
        fields = config.as_json() if isinstance(config, PipelineConfig) else config
        return self.submit(PIPELINE_TASK, kwargs={"config": fields}, **options)

    def _require_same(self, job: PreparedJob) -> None:
        """Refuse an id that another job has; a snapshot tells them apart, without one what people read does."""
        known, snapshot = self._store.get_job(job.job_id), job.record.snapshot
        kept = self._store.get_snapshot(job.job_id)
        facts = known.facts if known else None
        same_text = facts is not None and (facts.task, facts.payload_summary) == (
            job.record.facts.task,
            job.record.facts.payload_summary,
        )
        if same_text and (kept is None or snapshot is None or kept.digest == snapshot.digest):
            return
        raise InvalidJob("job_id", f"{job.job_id!r} belongs to another job already; use another id")

    def _is_cancelled_already(self, job_id: str) -> bool:
        """An intent may be older than the job, where the caller chose the id."""
        if not self._store.has_cancel_intent(job_id):
            return False
        end = JobEnd(
            status=JobStatus.CANCELLED, at=now(), evidence=Evidence.VERDICT, detail="cancelled before it was published"
        )
        self._store.append([JobEvent(kind=EventKind.ENDED, job_id=job_id, at=end.at, source="submit", end=end)])
        return True

    def _publish(self, job: PreparedJob) -> None:
        try:
            channel = self._broker.channel()
        except BrokerUnavailable as error:
            self._record_dispatch_failure(job, error)
            raise BrokerUnavailable(
                f"{error} Job {job.job_id} was not sent and is recorded as FAILED; when the broker is back: "
                f"jobledger retry {job.job_id}"
            ) from error
        try:
            self._send(job, channel)
        except Exception as error:
            if not isinstance(error, self._connection_errors()):
                self._record_dispatch_failure(job, error)
                raise
            self._broker.close()
            self._settle(job, error)

    def _send(self, job: PreparedJob, channel: Any) -> None:
        body = job.body
        header = JobHeader(submitted=True, known=True, grace=job.cancel_grace)
        self.app.tasks[body.task].apply_async(
            args=from_json(body.args),
            kwargs=from_json(body.kwargs),
            task_id=job.job_id,
            queue=body.queue,
            priority=body.priority,
            time_limit=body.time_limit,
            soft_time_limit=body.soft_time_limit,
            expires=job.expires,
            ignore_result=body.ignore_result,
            shadow=body.shadow,
            headers={**body.headers, HEADER: header_value(header)},
            producer=self.app.amqp.Producer(channel),
            retry=False,
        )

    def _connection_errors(self) -> tuple[type[BaseException], ...]:
        from kombu.exceptions import OperationalError

        return (*self.app.connection_for_write().connection_errors, OperationalError, OSError)

    def _settle(self, job: PreparedJob, error: Exception) -> None:
        """The answer was lost, so the message may be queued: look for it, and keep what stays uncertain."""
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        while time.monotonic() < deadline:
            try:
                if self._queues.find([job.job_id], [job.body.queue or ""]) or self._was_seen(job.job_id):
                    return
                break
            except BrokerUnavailable:
                time.sleep(0.1)
        logger.warning("Job %s may or may not be queued (%s): its record says so", job.job_id, type(error).__name__)
        self._store.append(
            [
                JobEvent(
                    kind=EventKind.DISPATCH_UNCERTAIN,
                    job_id=job.job_id,
                    at=now(),
                    source="submit",
                    text=redact_text(str(error)),
                )
            ]
        )

    def _was_seen(self, job_id: str) -> bool:
        entry = self._store.get_job(job_id)
        return entry is not None and entry.handed_over

    def _record_dispatch_failure(self, job: PreparedJob, error: Exception) -> None:
        end = JobEnd(
            status=JobStatus.FAILED,
            at=now(),
            evidence=Evidence.VERDICT,
            failure_kind=FailureKind.DISPATCH,
            error_type=type(error).__qualname__,
            error_message=f"It could not be handed to the broker: {redact_text(str(error))}",
        )
        self._store.append([JobEvent(kind=EventKind.ENDED, job_id=job.job_id, at=end.at, source="submit", end=end)])

    # -- cancel and retry

    def cancel_job(self, job_id: str, actor: str | None = None, reason: str | None = None) -> CancelOutcome:
        """Commit the intent to end a job, and carry it out as far as can be proven now; the leader does the rest.

        Raises:
            JobActionsDisabled, JobNotFound, JobActionNotAllowed: nothing was changed.
            HistoryUnavailable: nothing was changed.
            BrokerUnavailable: the intent is committed; the leader carries it out when the broker is back.
        """
        self._require_actions(f"cancel of {job_id}")
        return self._cancellation.request(job_id, actor, reason)

    def finish_cancels(self, lease: LeaseHold) -> list[CancelOutcome]:
        """Carry on with every cancel that is not proven yet: the leader's part."""
        return self._cancellation.finish_open(lease)

    def tidy_broker(self) -> None:
        """Write the deny set again where the broker has lost it, and forget ended nodes: the leader's part."""
        self._cancellation.restore_tombstones(self.settings.tombstone_ttl)
        self._cancellation.forget_ended_nodes()

    def retry_job(self, job_id: str, overrides: Mapping[str, Any] | None = None, actor: str | None = None) -> str:
        """Submit an ended job again, exactly, or with the overrides, and return the new job's id.

        Raises:
            JobActionsDisabled, JobNotFound, JobActionNotAllowed, SnapshotUnavailable, InvalidJob: nothing was changed.
            HistoryUnavailable, BrokerUnavailable: as ``submit``.
        """
        self._require_actions(f"retry of {job_id}")
        submission = resubmission(self._store, self._vault, job_id, overrides or {})
        logger.info("Job %s is retried by %s", job_id, actor or "somebody")
        return self.submit_many([submission])[0]

    def _require_actions(self, action: str) -> None:
        if not self.settings.job_actions_enabled:
            raise JobActionsDisabled(action)

    @property
    def queues(self) -> BrokerQueues:
        """The queues as they lie in the broker."""
        return self._queues

    def queue_depths(self, queues: Iterable[str]) -> dict[str, dict[int, int]]:
        """Return how many messages wait in each queue, by level; raises ``BrokerUnavailable``."""
        return self._queues.depths(queues)

    def close(self) -> None:
        """Give the connections to the broker back."""
        self._broker.close()
