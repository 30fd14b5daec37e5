"""Tells which jobs a prefork pool drops when the connection to the broker is lost.

Celery then clears what its pool has not begun to write to a process, for the broker delivers it again. A node that
still took such a job for handed over would drop that delivery as a duplicate, and the job would never run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from celery.concurrency.prefork import TaskPool as ProcessPool


def tell_dropped(pool: Any, dropped: Callable[[Collection[str]], object]) -> None:
    """Make each flush of a started prefork pool call ``dropped`` with the ids of its jobs that no process got."""
    if not isinstance(pool, ProcessPool) or pool.flush is None:
        return
    flush = pool.flush

    def flush_and_tell() -> None:
        waiting = [job for job in pool._pool._cache.values() if not job._accepted]  # billiard has no public name
        flush()
        dropped({job.correlation_id for job in waiting if not _is_read(job)})

    pool.flush = flush_and_tell


def _is_read(job: Any) -> bool:
    """Whether a living process has been sent the job, and will start it."""
    process = job._write_to
    return process is not None and bool(process._is_alive())
