"""Jobledger keeps what Celery forgets.

The public names are imported when they are first used, so that ``import jobledger`` needs neither Celery nor SQL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .controller.job_history_service import JobHistoryService
    from .controller.queue_execution_controller import QueueExecutionController
    from .errors import JobCancelled, JobledgerError
    from .history.job import JobStatus
    from .settings import Settings
    from .workers.cancellation import CancelToken
    from .workers.installation import install
    from .workers.job_context import current_job
    from .workers.pipeline import PipelineConfig
    from .workers.priorities import Priority

_HOMES = {
    "CancelToken": ".workers.cancellation",
    "JobCancelled": ".errors",
    "JobHistoryService": ".controller.job_history_service",
    "JobStatus": ".history.job",
    "JobledgerError": ".errors",
    "PipelineConfig": ".workers.pipeline",
    "Priority": ".workers.priorities",
    "QueueExecutionController": ".controller.queue_execution_controller",
    "Settings": ".settings",
    "current_job": ".workers.job_context",
    "install": ".workers.installation",
}

__all__ = [
    "CancelToken",
    "JobCancelled",
    "JobHistoryService",
    "JobStatus",
    "JobledgerError",
    "PipelineConfig",
    "Priority",
    "QueueExecutionController",
    "Settings",
    "current_job",
    "install",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'jobledger' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
