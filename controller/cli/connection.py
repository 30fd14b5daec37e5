"""Connects a command to the service, with as little running as it needs."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from .flags import current_settings

if TYPE_CHECKING:
    from ...history.job_history_store import JobHistoryStore
    from ...settings import Settings
    from ..job_history_service import JobHistoryService

#: Seconds that a command which asks once waits for the workers.
ONE_SHOT_WAIT = 0.3


@contextmanager
def reading_service(wait: float = ONE_SHOT_WAIT) -> Iterator[JobHistoryService]:
    """Give a service that starts nothing: without a running broker the live facts are unknown.

    Raises:
        SettingsError, HistoryUnavailable: when a setting is wrong, or the ledger is not there or does not answer.
    """
    from ..application import broker_if_running
    from ..ledger import open_existing_ledger

    settings, runs = broker_if_running(current_settings())
    with closing(_service(settings, wait if runs else 0.0, open_existing_ledger)) as service:
        yield service


@contextmanager
def acting_service() -> Iterator[JobHistoryService]:
    """Give a service with a broker: an own one, else the embedded one, started for the time of the block if need be.

    Raises:
        SettingsError, BrokerUnavailable, HistoryUnavailable: when it cannot be connected.
    """
    from ..application import broker_of
    from ..ledger import open_ledger

    with broker_of(current_settings()) as settings, closing(_service(settings, 0.0, open_ledger)) as service:
        yield service


def _service(settings: Settings, wait: float, open_store: Callable[[Settings], JobHistoryStore]) -> JobHistoryService:
    from ..application import load_application
    from ..job_history_service import JobHistoryService

    return JobHistoryService.connect(load_application(settings), wait=wait, open_store=open_store)


def actor() -> str:
    """Return who acts, for the audit: the name that the operating system gives this user."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
