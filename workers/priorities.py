"""Priorities, and the Celery settings that make them strict.

On Redis Celery keeps one list for each of up to ten levels and serves 0 first; RabbitMQ serves the highest number
first. The names hide that; a number is passed on as it is. On Redis a message without a priority is served before all
others, therefore a default priority is set, and no name stands for level 0.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, NamedTuple

from ..errors import InvalidJob


class Priority(StrEnum):
    """How urgent a job is."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


_REDIS_LEVELS: Final = {Priority.HIGH: 2, Priority.NORMAL: 5, Priority.LOW: 8}
_LEVEL_COUNT: Final = 10
PRIORITY_STEPS: Final = list(range(_LEVEL_COUNT))
DEFAULT_LEVEL: Final = _REDIS_LEVELS[Priority.NORMAL]


def serves_low_numbers_first(transport: str) -> bool:
    """Whether a broker of this kombu transport serves 0 before 9."""
    return "redis" in transport or transport in ("sentinel", "rediss", "valkey")


def wire_priority(priority: Priority | str | int | None, transport: str) -> int:
    """Return the number for a message: a name as the transport needs it, a number from 0 to 9 as it is.

    Raises:
        InvalidJob: for anything else, naming what is allowed.
    """
    if priority is None:
        priority = Priority.NORMAL
    if isinstance(priority, int) and not isinstance(priority, bool) and 0 <= priority < _LEVEL_COUNT:
        return priority
    if isinstance(priority, str) and priority.lower() in set(Priority):
        level = _REDIS_LEVELS[Priority(priority.lower())]
        return level if serves_low_numbers_first(transport) else _LEVEL_COUNT - level
    raise InvalidJob("priority", f"{priority!r} is not a priority; use high, normal, low or a number from 0 to 9")


def priority_name(level: int | None, transport: str = "redis") -> str:
    """Return what people read for a number on the wire."""
    for name in Priority:
        if level == wire_priority(name, transport):
            return str(name)
    return "none" if level is None else str(level)


#: What strict order needs, in workers of every pool and in publishers. Early acknowledgement without prefetch keeps
#: what waits in the broker, in its order, also when a more urgent job comes late.
STRICT_SETTINGS: Final[dict[str, Any]] = {
    "task_default_priority": DEFAULT_LEVEL,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
}
TRANSPORT_OPTIONS: Final[dict[str, Any]] = {"priority_steps": PRIORITY_STEPS}


class Contradiction(NamedTuple):
    """A setting of the user's that breaks a promise of ours."""

    setting: str
    value: object
    consequence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.setting}={self.value!r}: {self.consequence} To mend it: {self.remedy}"


def configure(app: Any) -> None:
    """Set what strict order needs, each setting only where the user has not set it."""
    for name, value in STRICT_SETTINGS.items():
        if not is_set_by_user(app, name):
            app.conf[name] = value
    if not _may_be_redis(app.conf.broker_write_url):
        return  # other transports hand their options on to libraries that refuse what they do not know
    options = {**TRANSPORT_OPTIONS, **(app.conf.broker_transport_options or {})}
    if options != app.conf.broker_transport_options:
        app.conf.broker_transport_options = options


def _may_be_redis(url: str | list[str] | None) -> bool:
    first = url[0] if isinstance(url, list) else url
    return first is None or serves_low_numbers_first(first.partition(":")[0])


def contradictions(app: Any) -> list[Contradiction]:
    """Return the settings of an app that break strict order, each with its consequence and the line that mends it."""
    conf = app.conf
    found = []
    steps = (conf.broker_transport_options or {}).get("priority_steps")
    if steps is not None and list(steps) != PRIORITY_STEPS:
        found.append(
            Contradiction(
                "broker_transport_options['priority_steps']",
                steps,
                "Priorities that share a step are served in the order of sending, and publishers with other steps "
                "write where this worker does not look.",
                "remove priority_steps, Jobledger sets ten steps.",
            )
        )
    if not conf.worker_disable_prefetch:
        held = f"{conf.worker_prefetch_multiplier} waiting jobs for each process"
        found.append(
            Contradiction(
                "worker_disable_prefetch",
                conf.worker_disable_prefetch,
                f"A worker takes up to {held} out of the order before a more urgent job comes.",
                "app.conf.worker_disable_prefetch = True",
            )
        )
    if conf.task_acks_late:
        found.append(
            Contradiction(
                "task_acks_late",
                True,
                "A job that runs while the connection to the broker drops is delivered a second time; a node drops "
                "its own second copies, another node does not know them.",
                "app.conf.task_acks_late = False",
            )
        )
    if conf.task_default_priority is None:
        found.append(
            Contradiction(
                "task_default_priority",
                None,
                "On Redis a job that is sent without a priority is served before all others.",
                f"app.conf.task_default_priority = {DEFAULT_LEVEL}",
            )
        )
    return found


def is_set_by_user(app: Any, name: str) -> bool:
    """Whether a Celery setting has a value that is not Celery's default."""
    from celery.app.defaults import DEFAULTS

    return bool(app.conf.get(name) != DEFAULTS.get(name)) or any(
        key in mapping for mapping in app.conf.maps[:-1] for key in (name, name.upper(), f"CELERY_{name.upper()}")
    )
