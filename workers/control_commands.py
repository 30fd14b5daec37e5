"""The remote commands that Jobledger adds to a worker."""

from __future__ import annotations

from typing import Any, Final

from .worker_node import this_node

LOCATE: Final = "jobledger_locate"
CANCEL: Final = "jobledger_cancel"


def register_control_commands() -> None:
    """Make the commands known to the workers of this process."""
    from celery.worker.control import control_command, inspect_command

    inspect_command(name=LOCATE, args=[("job_ids", list)])(_locate)
    control_command(name=CANCEL, args=[("job_ids", list)])(_cancel)


def _locate(state: Any, job_ids: list[str]) -> dict[str, Any]:
    node = this_node()
    return node.locate(job_ids) if node is not None else _no_node()


def _cancel(state: Any, job_ids: list[str]) -> dict[str, Any]:
    node = this_node()
    return node.cancel(job_ids) if node is not None else _no_node()


def _no_node() -> dict[str, Any]:
    return {"error": "Jobledger is not installed in this worker's application"}
