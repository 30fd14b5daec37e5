"""Jobledger's own Celery application: what runs pipelines where a user has no application of their own."""

from __future__ import annotations

from celery import Celery

from ..settings import Settings, load_settings
from .installation import install
from .pipeline import register_pipeline_task


def make_app(settings: Settings | None = None) -> Celery:
    """Return an application with the pipeline task, installed with the settings.

    Raises:
        SettingsError: when a setting is wrong.
    """
    app = Celery("jobledger", set_as_current=False)
    app.conf.task_default_queue = "jobledger"
    app.conf.task_ignore_result = True
    app.conf.broker_connection_retry_on_startup = True
    app.conf.accept_content = ["json"]
    install(app, settings or load_settings())
    register_pipeline_task(app)
    return app
