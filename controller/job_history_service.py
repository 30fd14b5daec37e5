"""What every face asks: jobs, as the ledger remembers them and the workers see them now, and what can be done to them.

No list or page waits for a worker or the broker; only a one-shot caller may wait for one refresh of the live view.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import msgspec

from ..errors import InvalidJob, JobNotFound
from ..history.event import EventKind, now
from ..history.export import export_jobs, new_file
from ..history.export_format import ExportFormat
from ..history.failure_group_page import FailureGroupPage
from ..history.job import ACTIVE_STATUSES, JobHistoryEntry, JobStatus
from ..history.job_history_store import PAGE_LIMIT, JobFilter, JobHistoryStore, RecordedEvent
from ..history.poison import PoisonPlace, poison_lines, replay
from ..history.retention import RetentionPolicy, Share, survey
from ..history.statistics import LedgerCounts, Statistics
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
from .poison_view import PoisonView, ReplayedView, poison_view, replayed_view
from .queue_execution_controller import QueueExecutionController
from .recovery import Recovery, RecoveryVerdict
from .retention import archive_path, policy_for, policy_of, prune
from .submission import Submission
from .views import JobViewPage, QueueView, WorkerView, queue_views, worker_views

#: Seconds that a one-shot caller waits for the live view, at most (design, section 8).
ONE_SHOT_WAIT: Final = 0.3
#: How many heartbeats a node may miss, and for how many seconds, before a person is told that nobody serves a queue.
_MISSED_HEARTBEATS: Final = 5
_SILENCE: Final = 30.0


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
    def connect(
        cls,
        app: Any,
        settings: Settings | None = None,
        *,
        wait: float = 0.0,
        open_store: Callable[[Settings], JobHistoryStore] = open_ledger,
    ) -> Self:
        """Return a service for an application, with the ledger and the broker that its settings name.

        Raises:
            SettingsError, HistoryUnavailable: when a setting is wrong, or the ledger cannot be opened.
        """
        installation = install(app, settings)
        store = open_store(installation.settings)
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
        shown = tuple(view for view in views if _is_shown(view, wanted))
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

    def first_of_family(self, job_id: str) -> str:
        """Return the id of the first job of a job's family of retries; the job's own where no other is known."""
        entry = self._store.get_job(job_id)
        return job_id if entry is None else _root_of(entry)

    def later_retries(self, job_id: str, limit: int = 20) -> tuple[JobViewModel, ...]:
        """Return the jobs of a job's family of retries that were made after it, newest first."""
        entry = self._store.get_job(job_id)
        if entry is None:
            return ()
        family = self.list_jobs(JobFilter(root_id=_root_of(entry)), limit=limit).jobs
        return tuple(job for job in family if job.created_at and job.created_at > entry.created_at)

    # -- sums over all jobs

    def counts(self) -> LedgerCounts:
        """Return how many jobs the ledger holds, by the status it knows; see ``JobHistoryStore.counts``."""
        return self._store.counts()

    def statistics(
        self, since: datetime, until: datetime | None = None, *, task: str | None = None, queue: str | None = None
    ) -> Statistics:
        """Return what the jobs did since a moment, until another one or now; see ``JobHistoryStore.statistics``.

        Raises:
            ValueError: when the range does not end after it begins.
        """
        return self._store.statistics(since, until or now(), task, queue)

    def failure_groups(self, cursor: str | None = None, limit: int = 50) -> FailureGroupPage:
        """Return a page of the groups of failed jobs, the one that failed last first.

        The jobs of one are those of ``JobFilter(failure_group=fingerprint)``.

        Raises:
            ValueError: for a cursor that no page gave out.
        """
        return self._store.failure_groups(cursor, limit)

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

    def nodes_for(self, job_id: str) -> list[str]:
        """Return the nodes of the ledger that serve a job's queue and gave a sign of life lately; asks no worker."""
        entry = self._store.get_job(job_id)
        queue = entry.facts.queue if entry and entry.facts else None
        silence = max(_SILENCE, _MISSED_HEARTBEATS * self._execution.settings.heartbeat_interval)
        oldest = now() - timedelta(seconds=silence)
        nodes = [node for node in self._store.list_nodes() if (node.heartbeat_at or node.started_at) >= oldest]
        return sorted(node.name for node in nodes if queue is None or queue in node.queues)

    def queues(self) -> list[QueueView]:
        """Return the queues with their depths by level, as far as the broker said."""
        return queue_views(self._look())

    # -- journal lines that could not be recorded

    def poison_lines(self) -> Iterator[PoisonView]:
        """Yield the journal lines that were set aside, redacted; any number of them in constant memory."""
        return map(poison_view, poison_lines(self._store))

    def get_poison_line(self, line_id: str) -> PoisonView | None:
        """Return one line that was set aside, redacted, or ``None``; raises ``ValueError`` for what is no id."""
        line = self._store.get_poison(PoisonPlace.parse(line_id))
        return None if line is None else poison_view(line)

    def replay_poison(self, *, dry_run: bool = False) -> Iterator[ReplayedView]:
        """Try every line that was set aside again, and yield what became of each; see ``poison.replay``."""
        return map(replayed_view, replay(self._store, dry_run=dry_run))

    def lost_jobs(self) -> list[RecoveryVerdict]:
        """Return what recovery would conclude now; changes nothing."""
        return Recovery(self._store, self._execution.queues).verdicts()

    # -- retention and export

    def export(
        self,
        target: Path | BinaryIO,
        job_filter: JobFilter | None = None,
        export_format: ExportFormat = ExportFormat.JSONL,
        *,
        events: bool = False,
        replace: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Write all filtered jobs, newest first and without their secrets, to a file or a stream; return how many.

        A file gets its name when it is whole; ``replace`` lets it take the place of another. A stream stays open.
        ``progress`` is told now and then how many jobs are written.

        Raises:
            ExportFailed: when the file exists or cannot be written, or the format is not installed.
            OSError: when the stream does not take it.
        """
        wanted = job_filter or JobFilter()
        options: dict[str, Any] = {"events": events, "progress": progress}
        if not isinstance(target, Path):
            return export_jobs(self._store, wanted, target, export_format, **options)
        with new_file(target, replace=replace) as stream:
            return export_jobs(self._store, wanted, stream, export_format, **options)

    def retention_policy(
        self, older_than: timedelta | None = None, keep: int | None = None, statuses: Collection[JobStatus] = ()
    ) -> RetentionPolicy:
        """Return a policy for ``prune``: jobs go that ended longer ago, or are not among the newest so many, or both.

        It is about the ended ones of the statuses, counted together; of all of them unless some are named. Without an
        age and a number it is that of the settings.

        Raises:
            InvalidJob: when statuses are named and neither an age nor a number.
        """
        if older_than is None and keep is None:
            if statuses:
                raise InvalidJob("status", "says only which jobs; an age or a number must say what goes")
            return policy_of(self._execution.settings)
        return policy_for(self._execution.settings, older_than, keep, statuses)

    def removable_jobs(self, policy: RetentionPolicy | None = None) -> dict[JobStatus, Share]:
        """Return what ``prune`` would remove now, for each status; changes nothing, and looks at each of the jobs."""
        return survey(self._store, policy or policy_of(self._execution.settings), now())

    def prune(
        self,
        policy: RetentionPolicy | None = None,
        archive: Path | None = None,
        progress: Callable[[Counter[JobStatus]], None] | None = None,
    ) -> dict[JobStatus, int]:
        """Remove old jobs with everything about them; return how many of each status.

        Without a policy that of the settings counts, without an archive theirs, if they have one. Each batch is in
        the archive, on the disk, before it is removed. ``progress`` is told after each batch what is removed so far.

        Raises:
            RetentionBusy: while another process removes jobs.
            ExportFailed: when the archive cannot be written; what is not in it was not removed.
        """
        settings = self._execution.settings
        return dict(prune(self._store, policy or policy_of(settings), archive or archive_path(settings), progress))

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


def _root_of(entry: JobHistoryEntry) -> str:
    return (entry.facts.root_id if entry.facts else None) or entry.job_id


def _is_shown(view: JobViewModel, wanted: JobFilter) -> bool:
    """What the workers say now can differ from what the ledger found the job by."""
    return (not wanted.statuses or view.status in wanted.statuses) and wanted.worker_id in (None, view.worker_id)


def _as_stored(wanted: JobFilter) -> JobFilter:
    """What must be read for a filter that is applied after the merge: a worker may know that a queued job runs."""
    if not ACTIVE_STATUSES & set(wanted.statuses):
        return wanted
    return msgspec.structs.replace(wanted, statuses=tuple(sorted(ACTIVE_STATUSES | set(wanted.statuses))))


_STEPS: Final = tuple(EventKind)


def _rank(kind: EventKind) -> int:
    """Events of one instant are told in the order in which such things happen."""
    return _STEPS.index(kind)
