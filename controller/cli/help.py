"""The help of a command: its docstring, in paragraphs that fit every terminal."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def help_of(command: Callable[..., Any]) -> str:
    """Return a command's help; examples, after a line of ``\\b``, keep their lines."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(text if text.startswith("\b") else " ".join(text.split()) for text in paragraphs)
