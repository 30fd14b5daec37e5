"""PostgreSQL connections that give up on a server which neither answers nor goes away.

The operating system finds out about a host that is gone; nothing but a clock finds out about a server that is stopped
or hangs behind a connection that stands.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg


def patient_connections(seconds: float) -> type[psycopg.Connection[Any]]:
    """Return a kind of connection whose every question waits ``seconds`` for its answer, at most.

    Then the connection is closed, and ``psycopg.OperationalError`` raised.
    """

    class PatientConnection(psycopg.Connection[Any]):
        def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().wait(_within(seconds, gen), *args, **kwargs)
            except _NoAnswerError:
                self.pgconn.finish()
                raise

    return PatientConnection


class _NoAnswerError(psycopg.OperationalError):
    pass


def _within(seconds: float, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    deadline = time.monotonic() + seconds
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise _NoAnswerError(f"the server has not answered for {seconds:g} s")
            wanted = steps.send(ready)
    except StopIteration as end:
        return end.value
