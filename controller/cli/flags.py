"""The settings that every command takes as flags.

A flag becomes the environment variable of its setting, so that whatever the command starts, and whatever asks for the
settings later, sees the same: defaults < file < environment < flags.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from ...errors import SettingsError
from ...settings import ENVIRONMENT_PREFIX, FILE_VARIABLE, Settings, load_settings

Command = TypeVar("Command", bound=Callable[..., Any])

_PANEL: Final = "Settings"


def _option(flag: str, metavar: str, text: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=text, rich_help_panel=_PANEL, show_default=False)


DataDir = Annotated[
    str | None, _option("--data-dir", "DIR", "Where journals, the embedded broker and the default ledger live.")
]
BrokerUrl = Annotated[str | None, _option("--broker-url", "URL", "The broker: redis://host:6379/0.")]
HistoryUrl = Annotated[
    str | None, _option("--history-url", "URL", "The ledger: sqlite:///file or postgresql+psycopg://...")
]
App = Annotated[str | None, _option("--app", "MODULE:APP", "The Celery application, such as shop.jobs:app.")]
Config = Annotated[str | None, _option("--config", "FILE", "The settings file; jobledger.toml unless named.")]

_FLAGS: Final = {"data_dir": DataDir, "broker_url": BrokerUrl, "history_url": HistoryUrl, "app": App, "config": Config}


def with_settings(command: Command) -> Command:
    """Give a command the flags of the settings; it asks for them by ``current_settings``."""

    @functools.wraps(command)
    def with_flags(*args: Any, **kwargs: Any) -> Any:
        use_flags({name: kwargs.pop(name) for name in _FLAGS})
        return command(*args, **kwargs)

    signature = inspect.signature(command, eval_str=True)
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _FLAGS.items()
    ]
    parameters = [*signature.parameters.values(), *flags]
    with_flags.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_flags.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_flags  # type: ignore[return-value]


def use_flags(flags: dict[str, str | None]) -> None:
    """Make flags the settings of this process and of what it starts.

    Raises:
        SettingsError: for an empty one.
    """
    for name, value in flags.items():
        if value is None:
            continue
        if not value.strip():
            raise SettingsError(f"--{name.replace('_', '-')} is empty.")
        os.environ[_variable(name)] = _absolute(value) if name in ("data_dir", "config") else value


def current_settings() -> Settings:
    """Return the settings of this process.

    Raises:
        SettingsError: when one is wrong, or the file that was named does not exist.
    """
    file = os.environ.get(FILE_VARIABLE)
    if file and not Path(file).is_file():
        raise SettingsError(f"The settings file {file} does not exist (--config, {FILE_VARIABLE}).")
    return load_settings()


def _variable(name: str) -> str:
    return FILE_VARIABLE if name == "config" else f"{ENVIRONMENT_PREFIX}{name.upper()}"


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
