"""Opens the ledger that the settings name."""

from __future__ import annotations

from ..errors import HistoryUnavailable
from ..history import schema_version
from ..history.job_history_store import JobHistoryStore
from ..history.redaction import hide_password
from ..history.sql_store import SqlJobHistoryStore
from ..settings import Settings


def open_ledger(settings: Settings) -> JobHistoryStore:
    """Return the store; a fresh database gets its schema. The caller closes it.

    Raises:
        HistoryUnavailable: when the ledger cannot be reached, or its schema does not fit.
    """
    return SqlJobHistoryStore.open(settings.ledger_url)


def open_existing_ledger(settings: Settings) -> JobHistoryStore:
    """Return the store of a ledger that is there already; for those who only read. The caller closes it.

    Raises:
        HistoryUnavailable: when there is none, and nothing is made; else as ``open_ledger``.
    """
    if schema_version.check(settings.ledger_url).state is schema_version.SchemaState.EMPTY:
        raise HistoryUnavailable(
            f"There is no ledger at {hide_password(settings.ledger_url)}; the first worker or the first job makes it. "
            "Is it another one? See --data-dir and --history-url."
        )
    return open_ledger(settings)
