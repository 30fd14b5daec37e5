"""Picture pipelines: a typed request, the stages that carry it out, and the task that runs it on a worker.

Importing this package needs neither Celery nor Pillow; a stage imports what it needs when it runs.
"""

from ...errors import InvalidJob
from .config import PipelineConfig, StageConfig
from .errors import PipelineError, PipelineProducedNothing
from .runner import PipelineRunner
from .stage import Picture, Stage, StageContext, StageSettings
from .task import PIPELINE_TASK, register_pipeline_task
from .validation import validate_pipeline

__all__ = [
    "PIPELINE_TASK",
    "InvalidJob",
    "Picture",
    "PipelineConfig",
    "PipelineError",
    "PipelineProducedNothing",
    "PipelineRunner",
    "Stage",
    "StageConfig",
    "StageContext",
    "StageSettings",
    "register_pipeline_task",
    "validate_pipeline",
]
