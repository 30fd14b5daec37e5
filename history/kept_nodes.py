"""The nodes whose ends are not recorded yet: one small file each beside the journals, so that the next agent knows
them although the ledger was away when they came and the agent of then is gone."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

import msgspec

from .ids import new_id
from .journal import SUFFIX, UNBORN_SUFFIX
from .node import Node

_SUFFIX: Final = ".node"
#: What a node's file is called until it is whole.
_UNBORN_SUFFIX: Final = ".kept"
#: Seconds after which a file that is still called so has lost its writer.
_UNBORN_LIFE: Final = 60.0
_JOURNALS: Final = frozenset({SUFFIX, UNBORN_SUFFIX})


class KeptNodes:
    """The node files of one journal directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, node: Node) -> None:
        """Write a node's file; raises ``OSError`` where that is not possible."""
        hidden = self._directory / f"{node.boot_id}.{new_id()}{_UNBORN_SUFFIX}"
        try:
            hidden.write_bytes(msgspec.json.encode(node))
            hidden.rename(self._directory / f"{node.boot_id}{_SUFFIX}")
        finally:
            hidden.unlink(missing_ok=True)

    def all(self) -> list[Node]:
        """Return the kept nodes; a file that cannot be read counts for nothing."""
        nodes = []
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                nodes.append(msgspec.json.decode(path.read_bytes(), type=Node))
        return nodes

    def remove_unborn(self) -> None:
        """Remove what an agent left that died while it wrote."""
        oldest = time.time() - _UNBORN_LIFE
        for path in self._directory.glob(f"*{_UNBORN_SUFFIX}"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def forget(self, boot_id: str) -> None:
        """Remove a node's file and everything else that its boot left in the directory, but never a journal."""
        for path in self._directory.iterdir():
            if path.name.startswith(f"{boot_id}.") and path.suffix not in _JOURNALS:
                path.unlink(missing_ok=True)
