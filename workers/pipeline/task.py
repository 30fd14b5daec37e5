"""The Celery task that runs pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...settings import load_settings
from ..job_context import current_job
from .registry import installed_stages
from .runner import PipelineRunner
from .validation import validate_pipeline

if TYPE_CHECKING:
    from celery import Celery

#: The name of the task on the wire.
PIPELINE_TASK = "jobledger.run_pipeline"


def execute_pipeline(config: dict[str, Any]) -> dict[str, Any]:
    """Run a pipeline for the current job, with this worker's settings; see ``PipelineRunner.run``."""
    checked = validate_pipeline(config)
    return PipelineRunner(installed_stages(), load_settings(), current_job()).run(checked)


def register_pipeline_task(app: Celery) -> Any:
    """Give ``app`` the task ``jobledger.run_pipeline`` and return it; a second call changes nothing."""
    return app.task(name=PIPELINE_TASK, shared=False)(execute_pipeline)
