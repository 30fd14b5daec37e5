"""Where jobs run: what Jobledger adds to a Celery application and its workers.

``celery -A jobledger.workers worker`` runs Jobledger's own application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import JobCancelled

if TYPE_CHECKING:
    from celery import Celery

    app: Celery

__all__ = ["JobCancelled"]


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module 'jobledger.workers' has no attribute {name!r}")
    from .default_app import make_app

    globals()["app"] = made = make_app()
    return made
