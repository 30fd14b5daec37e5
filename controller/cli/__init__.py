"""The command line: a face over the service, with no logic of its own."""

from __future__ import annotations

import importlib.util
import sys
from typing import NoReturn

from ...errors import JobledgerError

__all__ = ["JobledgerError", "main"]


def main() -> NoReturn:
    """Run the command that the arguments name, and exit with its code."""
    if importlib.util.find_spec("typer") is None:
        sys.exit('The command line is not installed; install it by: pip install "jobledger[controller]"')
    from .program import run

    sys.exit(run(sys.argv[1:]))
