"""The ledger's schema, one file for each version."""

from ....errors import HistoryUnavailable

__all__ = ["HistoryUnavailable"]
