"""The Tk panel: a view over a job service, in-process or over HTTP."""

from ..errors import JobledgerError

__all__ = ["JobledgerError"]
