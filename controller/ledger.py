"""Opens the ledger that the settings name."""

from __future__ import annotations

from ..history.job_history_store import JobHistoryStore
from ..history.sql_store import SqlJobHistoryStore
from ..settings import Settings


def open_ledger(settings: Settings) -> JobHistoryStore:
    """Return the store; a fresh database gets its schema. The caller closes it.

    Raises:
        HistoryUnavailable: when the ledger cannot be reached, or its schema does not fit.
    """
    return SqlJobHistoryStore.open(settings.ledger_url)
