"""What every face asks: jobs, as the ledger remembers them and the workers see them now, and what can be done to them.

No list or page waits for a worker or the broker; only a one-shot caller may wait for one refresh of the live view.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Self

import msgspec

from ..errors import JobNotFound
from ..history.event import EventKind
from ..history.job import ACTIVE_STATUSES, JobStatus
from ..history.job_history_store import PAGE_LIMIT, JobFilter, JobHistoryStore, RecordedEvent
from ..settings import Settings
from ..workers.broker import Broker
from ..workers.installation import install
from ..workers.pipeline import PipelineConfig
from .cancel_outcome import CancelOutcome
from .job_view import JobViewModel
from .ledger import open_ledger
from .live_facts import LiveSnapshot
from .live_view import LiveView
from .merge import foreign_jobs, merge, merge_job
from .queue_execution_controller import QueueExecutionController
from .recovery import Recovery, RecoveryVerdict
from .submission import Submission
from .views import JobViewPage, QueueView, WorkerView, queue_views, worker_views

#: Seconds that a one-shot caller waits for the live view, at most (design, section 8).
ONE_SHOT_WAIT: Final = 0.3


class JobHistoryService:
    """The ledger, the live view and the controller under one roof; safe for threads.

    ``wait`` is how many seconds each call may wait for a first live view: 0 for a server, ``ONE_SHOT_WAIT`` for a
    command that asks once.
    """

    def __init__(
        self,
        store: JobHistoryStore,
        execution: QueueExecutionController,
        live_view: LiveView,
        *,
        wait: float = 0.0,
    ) -> None:
        self._store = store
        self._execution = execution
        self._live_view = live_view
        self._wait = wait

    @classmethod
    def connect(cls, app: Any, settings: Settings | None = None, *, wait: float = 0.0) -> Self:
        """Return a service for an application, with the ledger and the broker that its settings name.

        Raises:
            SettingsError, HistoryUnavailable: when a setting is wrong, or the ledger cannot be opened.
        """
        installation = install(app, settings)
        store = open_ledger(installation.settings)
        broker = Broker(app)
        execution = QueueExecutionController(app, store, installation.settings, installation.vault, broker)
        return cls(store, execution, LiveView(app), wait=wait)

    @property
    def execution(self) -> QueueExecutionController:
        """The controller that carries out what the service is asked to do."""
        return self._execution

    # -- jobs

    def list_active_jobs(self, limit: int = PAGE_LIMIT) -> list[JobViewModel]:
        """Return the jobs that wait or run, also those that only a worker knows; newest first."""
        return self._merged_page(ACTIVE_STATUSES, limit)

    def list_recent_jobs(self, limit: int = 50, status: JobStatus | None = None) -> list[JobViewModel]:
        """Return the newest jobs, all or those of one status."""
        return self._merged_page(frozenset({status}) if status else frozenset(), limit)

    def list_jobs(self, job_filter: JobFilter | None = None, cursor: str | None = None, limit: int = 50) -> JobViewPage:
        """Return a page of jobs, newest first, and the cursor to the next.

        Raises:
            ValueError: for a cursor that no page gave out.
        """
        wanted = job_filter or JobFilter()
        page = self._store.page_jobs(_as_stored(wanted), cursor, limit)
        live = self._look()
        views = [merge_job(entry, live, actions_enabled=self._actions_enabled) for entry in page.entries]
        shown = tuple(view for view in views if not wanted.statuses or view.status in wanted.statuses)
        return JobViewPage(jobs=shown, next_cursor=page.next_cursor)

    def get_job(self, job_id: str) -> JobViewModel:
        """Return one job, also one that only a worker knows; raises ``JobNotFound``."""
        entry = self._store.get_job(job_id)
        live = self._look()
        if entry is not None:
            return merge_job(entry, live, actions_enabled=self._actions_enabled)
        for view in foreign_jobs(live, ()):
            if view.job_id == job_id:
                return view
        raise JobNotFound(job_id)

    def get_job_events(self, job_id: str) -> list[RecordedEvent]:
        """Return what happened to a job, by the time of happening; raises ``JobNotFound``."""
        events = self._store.get_job_events(job_id)
        if not events and self._store.get_job(job_id) is None:
            raise JobNotFound(job_id)
        return sorted(events, key=lambda recorded: (recorded.event.at, _rank(recorded.event.kind), recorded.seq))

    def get_job_log(self, job_id: str, limit: int = 200) -> list[RecordedEvent]:
        """Return the newest lines of a job's log, oldest first."""
        return self._store.get_job_log(job_id, limit)

    # -- actions

    def submit(self, task: str | Any, args: Any = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> str:
        """Submit a job; see ``QueueExecutionController.submit``."""
        return self._execution.submit(task, args, kwargs, **options)

    def submit_many(self, submissions: Iterable[Submission]) -> list[str]:
        """Submit jobs; see ``QueueExecutionController.submit_many``."""
        return self._execution.submit_many(submissions)

    def submit_pipeline_job(self, config: PipelineConfig | Mapping[str, Any], **options: Any) -> str:
        """Submit a pipeline; see ``QueueExecutionController.submit_pipeline_job``."""
        return self._execution.submit_pipeline_job(config, **options)

    def cancel_job(self, job_id: str, actor: str | None = None, reason: str | None = None) -> CancelOutcome:
        """Cancel a job; see ``QueueExecutionController.cancel_job``."""
        return self._execution.cancel_job(job_id, actor, reason)

    def retry_job(self, job_id: str, overrides: Mapping[str, Any] | None = None, actor: str | None = None) -> str:
        """Repeat a job as a new one, and return the new id; see ``QueueExecutionController.retry_job``."""
        return self._execution.retry_job(job_id, overrides, actor)

    # -- nodes and queues

    def workers(self) -> list[WorkerView]:
        """Return the nodes that have not ended, with what they said last."""
        return worker_views(self._store.list_nodes(), self._look())

    def queues(self) -> list[QueueView]:
        """Return the queues with their depths by level, as far as the broker said."""
        return queue_views(self._look())

    def lost_jobs(self) -> list[RecoveryVerdict]:
        """Return what recovery would conclude now; changes nothing."""
        return Recovery(self._store, self._execution.queues).verdicts()

    def close(self) -> None:
        """Give every connection back."""
        self._live_view.close()
        self._execution.close()
        self._store.close()

    # -- merging

    def _merged_page(self, statuses: Collection[JobStatus], limit: int) -> list[JobViewModel]:
        live = self._look()
        stored = _as_stored(JobFilter(statuses=tuple(sorted(statuses))))
        entries = {entry.job_id: entry for entry in self._store.page_jobs(stored, None, limit).entries}
        if live is not None:
            entries |= self._store.get_jobs(live.job_ids(time.monotonic()) - entries.keys())
        return merge(entries.values(), live, statuses=statuses, limit=limit, actions_enabled=self._actions_enabled)

    def _look(self) -> LiveSnapshot | None:
        return self._live_view.look(self._wait)

    @property
    def _actions_enabled(self) -> bool:
        return self._execution.settings.job_actions_enabled


def _as_stored(wanted: JobFilter) -> JobFilter:
    """What must be read for a filter that is applied after the merge: a worker may know that a queued job runs."""
    if not ACTIVE_STATUSES & set(wanted.statuses):
        return wanted
    return msgspec.structs.replace(wanted, statuses=tuple(sorted(ACTIVE_STATUSES | set(wanted.statuses))))


_STEPS: Final = tuple(EventKind)


def _rank(kind: EventKind) -> int:
    """Events of one instant are told in the order in which such things happen."""
    return _STEPS.index(kind)
