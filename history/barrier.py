"""The barrier: before deciding about a job that nobody reports on, know everything that was already written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from .job_history_store import JobHistoryStore

_INTERVAL: Final = 0.01


def wait_until_recorded(store: JobHistoryStore, ends: Mapping[str, int], deadline: float) -> bool:
    """Wait until the ledger holds each journal up to the given byte; return whether it does.

    ``ends`` is what a node's answer carries, ``deadline`` a moment of ``time.monotonic()``. An empty journal, which
    nobody ever records, holds nothing back.
    """
    missing = {name: end for name, end in ends.items() if end > 0}
    while missing:
        recorded = store.journal_ends(missing)
        missing = {name: end for name, end in missing.items() if recorded.get(name, 0) < end}
        if not missing:
            break
        if time.monotonic() >= deadline:
            return False
        time.sleep(_INTERVAL)
    return True
