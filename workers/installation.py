"""``install(app)``: one call that makes a Celery application keep what Celery forgets."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import Any, Final

from celery import bootsteps, signals

from ..errors import SettingsError
from ..history.snapshot import SnapshotVault, local_key
from ..settings import Settings, load_settings
from .control_commands import register_control_commands
from .job_context import current_job
from .job_request import request_class
from .locality import is_local
from .priorities import configure, contradictions
from .process_pool import tell_dropped
from .recording import JobRecorder
from .signals import SignalHandlers
from .thread_pool import wake_on_return
from .worker_node import WorkerNode, become, this_node

logger = logging.getLogger("jobledger")

_INSTALLED: Final = "_jobledger"


class Installation:
    """What ``install`` made of an application: its settings, its recorder and its vault."""

    def __init__(self, app: Any, settings: Settings, recorder: JobRecorder) -> None:
        self.app = app
        self.settings = settings
        self.recorder = recorder

    @functools.cached_property
    def vault(self) -> SnapshotVault | None:
        """Seals snapshots; ``None`` without a key, and then no body is recorded anywhere."""
        return make_vault(self.settings, self.app)


def install(app: Any, settings: Settings | None = None, *, recorder: JobRecorder | None = None) -> Installation:
    """Make a Celery application record its jobs, keep their order, and let them be cancelled and retried.

    Call it once where the application is made, before or after its tasks are defined, in workers and in processes
    that only publish. It starts nothing: the first event, or the worker's start, brings up the recording agent. Each
    Celery setting is set only where the application has not set it; a setting that contradicts a promise is logged
    when the worker starts. A second call returns the first one's installation.

    Args:
        settings: Unset: the file and the environment, see ``Settings``.
        recorder: Where events go; for tests.

    Raises:
        SettingsError: when a setting is wrong.
    """
    known: Installation | None = getattr(app, _INSTALLED, None)
    if known is not None:
        return known
    settings = settings or load_settings()
    installation = Installation(app, settings, recorder or _process_recorder(settings))
    setattr(app, _INSTALLED, installation)
    _configure(app, settings)
    SignalHandlers(installation.recorder, lambda: installation.vault, lambda: app.conf.task_default_priority).connect()
    register_control_commands()
    signals.celeryd_init.connect(_prepare_worker, weak=False, dispatch_uid="jobledger.celeryd_init")
    signals.worker_shutdown.connect(_say_goodbye, weak=False, dispatch_uid="jobledger.worker_shutdown")
    app.steps["worker"].add(NodeStep)
    return installation


def installation_of(app: Any) -> Installation | None:
    """Return what ``install`` made of an application, if it was called."""
    return getattr(app, _INSTALLED, None)


def make_vault(settings: Settings, app: Any) -> SnapshotVault | None:
    """Return the vault for an application's snapshots.

    The key is made by itself only where broker and ledger are both on this machine.
    """
    if settings.snapshot_key is not None:
        keys = [key.strip() for key in settings.snapshot_key.get_secret_value().split(",")]
        return SnapshotVault(tuple(key for key in keys if key))
    if not (is_local(settings.ledger_url) and is_local(app.conf.broker_write_url or app.conf.broker_url or "")):
        return None
    try:
        return SnapshotVault((local_key(settings.data_dir),))
    except (OSError, SettingsError) as error:
        logger.error("Job arguments are not kept, jobs cannot be retried: the key cannot be used (%s)", error)
        return None


_recorders: Final[list[JobRecorder]] = []


def _process_recorder(settings: Settings) -> JobRecorder:
    """Applications of one process with the same settings share a recorder."""
    known = next((recorder for recorder in _recorders if recorder.settings == settings), None)
    if known is None:
        known = JobRecorder(settings)
        _recorders.append(known)
    return known


def _configure(app: Any, settings: Settings) -> None:
    def apply(*_: object, **__: object) -> None:
        if settings.broker_url is not None:
            app.conf.broker_url = settings.broker_url.get_secret_value()
        configure(app)

    if app.configured:
        apply()
    else:
        app.on_after_configure.connect(apply, weak=False, dispatch_uid="jobledger.configure")


def _prepare_worker(instance: Any = None, options: dict[str, Any] | None = None, **_: Any) -> None:
    """Before a worker reads its settings and its tasks."""
    app = instance.app
    installation = installation_of(app)
    if installation is None:
        return
    app.conf.worker_prefetch_multiplier = (options or {}).get("prefetch_multiplier") or 1
    for contradiction in contradictions(app):
        logger.warning("%s", contradiction)
    if installation.vault is None:
        logger.warning("Job arguments are not kept and jobs cannot be retried: set JOBLEDGER_SNAPSHOT_KEY")


def _prepare_tasks(app: Any) -> None:
    app.finalize()
    for task in app.tasks.values():
        _prepare_task(task)


def _prepare_task(task: Any) -> None:
    from celery.utils.imports import symbol_by_name

    task.Request = request_class(symbol_by_name(task.Request))
    task_class = type(task)
    if not getattr(task_class.before_start, "checks_cancel", False):
        task_class.before_start = _checking_cancel(task_class.before_start)


def _checking_cancel(before_start: Callable[..., Any]) -> Callable[..., Any]:
    """A job that was cancelled on its way to a process stops before its function: no signal could stop it there."""

    @functools.wraps(before_start)
    def check(self: Any, task_id: str, args: Any, kwargs: Any) -> Any:
        current_job().raise_if_cancelled()
        return before_start(self, task_id, args, kwargs)

    check.checks_cancel = True  # type: ignore[attr-defined]
    return check


class NodeStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Makes a worker a node: its board before the pool forks, its fence before it consumes."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._node: WorkerNode | None = None

    def create(self, worker: Any) -> None:
        """Before the pool starts."""
        installation = installation_of(worker.app)
        if installation is not None:
            # Not in a signal's handler: Celery would log its error, and the worker would start jobs without the fence.
            _prepare_tasks(worker.app)
            self._node = WorkerNode(worker, installation.recorder)
            become(self._node)

    def start(self, worker: Any) -> None:
        """After the pool has started, before the worker consumes."""
        if self._node is not None:
            tell_dropped(worker.pool, self._node.dropped_by_pool)
            self._node.start()

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """At each connection."""
        wake_on_return(worker.pool, hub)


def _say_goodbye(**_: Any) -> None:
    """After the pool has ended: the last job's end is in its journal."""
    node = this_node()
    if node is not None:
        become(None)
        node.stop()


def start_directory(settings: Settings) -> None:
    """Create the data directory, readable by its owner only.

    Raises:
        SettingsError: when it cannot be created or written.
    """
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"The data directory {settings.data_dir} cannot be created: {error.strerror}.") from None
    if not os.access(settings.data_dir, os.W_OK | os.X_OK):
        raise SettingsError(f"The data directory {settings.data_dir} is not writable; set JOBLEDGER_DATA_DIR.")
