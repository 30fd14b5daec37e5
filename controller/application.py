"""Finds the user's Celery application and the broker that it uses."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ..errors import SettingsError
from ..history.redaction import hide_password, redact_text
from ..settings import Settings
from ..workers.default_app import make_app
from ..workers.installation import install
from ..workers.pipeline import register_pipeline_task
from ..workers.priorities import configure
from .embedded_broker import EmbeddedBroker


def load_application(settings: Settings) -> Any:
    """Return the application that the settings name, installed; Jobledger's own when they name none.

    Raises:
        SettingsError: when it cannot be imported, or is no Celery application, or another setting is wrong.
    """
    app = make_app(settings) if settings.app is None else _import_application(settings.app)
    install(app, settings)
    if settings.broker_url is not None:
        # An application that installed itself while it was imported did not know yet which broker was chosen.
        app.conf.broker_url = settings.broker_url.get_secret_value()
        configure(app)
    _check_transport(app)
    register_pipeline_task(app)
    app.loader.import_default_modules()
    return app


def _import_application(path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise SettingsError(
            f"app (JOBLEDGER_APP): {path!r} is not of the form module:attribute, such as shop.jobs:app."
        )
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
    except (Exception, SystemExit) as error:
        problem = redact_text(f"{type(error).__name__}: {error}")
        raise SettingsError(f"app (JOBLEDGER_APP): {module_name!r} cannot be imported: {problem}") from error
    return _checked(found, path, module_name)


def _check_transport(app: Any) -> None:
    """An unknown kind of broker is a wrong setting, not a broker that is away."""
    try:
        _ = app.connection_for_write().transport.driver_type
    except (ImportError, KeyError, AttributeError, ValueError) as error:
        shown = hide_password(app.conf.broker_write_url or "")
        problem = redact_text(str(error).strip("'\""))
        raise SettingsError(f"broker_url (JOBLEDGER_BROKER_URL): {shown!r} names no broker: {problem}") from None


def _checked(found: Any, path: str, module_name: str) -> Any:
    from celery import Celery

    if isinstance(found, Celery):
        return found
    module = sys.modules[module_name]
    known = sorted(name for name, value in vars(module).items() if isinstance(value, Celery))
    hint = f"it has {', '.join(known)}" if known else "it has none"
    raise SettingsError(f"app (JOBLEDGER_APP): {path!r} is no Celery application of {module_name!r}; {hint}.")


def has_own_broker(settings: Settings) -> bool:
    """Whether a broker is named, by a setting or by the user's application."""
    if settings.broker_url is not None:
        return True
    return settings.app is not None and bool(_import_application(settings.app).conf.broker_url)


def broker_if_running(settings: Settings) -> tuple[Settings, bool]:
    """Return the settings with a broker, and whether it may be worth asking; starts and creates nothing."""
    if has_own_broker(settings):
        return settings, True
    url = EmbeddedBroker.running_url(settings.data_dir)
    return with_broker(settings, url or EmbeddedBroker(settings.data_dir).url), url is not None


@contextmanager
def broker_of(settings: Settings) -> Iterator[Settings]:
    """Give the settings with a broker: the one they name, else the embedded one, held for the time of the block.

    Raises:
        SettingsError, BrokerUnavailable: when there is no server program, or it does not start.
    """
    if has_own_broker(settings):
        yield settings
        return
    with EmbeddedBroker(settings.data_dir) as broker:
        yield with_broker(settings, broker.url)


def with_broker(settings: Settings, url: str) -> Settings:
    """Return the settings with a broker."""
    return settings.model_copy(update={"broker_url": SecretStr(url)})
