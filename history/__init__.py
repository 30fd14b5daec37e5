"""What happened: events, the journal that carries them, and the ledger that keeps them."""

from ..errors import HistoryUnavailable

__all__ = ["HistoryUnavailable"]
