"""A leader with connections of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..workers.broker import Broker
from ..workers.installation import install
from .leader import Leader
from .ledger import open_ledger
from .queue_execution_controller import QueueExecutionController
from .recovery import Recovery


@contextmanager
def leader_of(app: Any) -> Iterator[Leader]:
    """Give a leader for an installed application; its connections are given back at the end of the block.

    Raises:
        HistoryUnavailable: when the ledger cannot be opened.
    """
    installation = install(app)
    store = open_ledger(installation.settings)
    controller = QueueExecutionController(app, store, installation.settings, installation.vault, Broker(app))
    try:
        yield Leader(controller, store, Recovery(store, controller.queues))
    finally:
        controller.close()
        store.close()


@contextmanager
def leading(app: Any) -> Iterator[None]:
    """Lead from a thread, for the time of the block; raises like ``leader_of``."""
    stop = threading.Event()
    with leader_of(app) as leader:
        thread = threading.Thread(target=leader.run, args=(stop,), name="jobledger-leader", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
