"""The ledger's schema, version by version."""

from ...errors import HistoryUnavailable

__all__ = ["HistoryUnavailable"]
