"""The only bridge between what the workers say now and what the ledger remembers."""

from ..errors import JobledgerError

__all__ = ["JobledgerError"]
