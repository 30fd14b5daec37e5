"""Where an agent listens, and what its clients say to it: one JSON object a line."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import time
from pathlib import Path
from typing import Annotated, Final

import msgspec

from .job import Name
from .node import Node

#: Longer lines come from no client of ours.
MESSAGE_LIMIT: Final = 1 << 20

_SOCKET_PATH_LIMIT: Final = 100
_SHORT_PATHS: Final = Path("/tmp")  # noqa: S108 - the same for every environment; checked before its use

_SOCKET_LIFE: Final = 86_400.0

BootId = Annotated[str, msgspec.Meta(pattern=r"\A[\w-]{1,255}\Z")]


class Attach(msgspec.Struct, frozen=True, tag_field="op", tag="attach"):
    """A process introduces itself; a node also describes itself."""

    boot_id: BootId
    #: See ``ledger_fingerprint``.
    ledger: Name
    node: Node | None = None

    def __post_init__(self) -> None:
        if self.node is not None and self.node.boot_id != self.boot_id:
            raise ValueError(f"a node of boot {self.node.boot_id!r} cannot attach as boot {self.boot_id!r}")


class Flush(msgspec.Struct, frozen=True, tag_field="op", tag="flush"):
    """Asks for the receipt of everything that the client's boot has written; ``id`` comes back in it."""

    id: int


class Goodbye(msgspec.Struct, frozen=True, tag_field="op", tag="goodbye"):
    """The same, and the client's boot ends as it should."""

    id: int


class Ping(msgspec.Struct, frozen=True, tag_field="op", tag="ping"):
    """Asks for a sign of life."""


class Status(msgspec.Struct, frozen=True, tag_field="op", tag="status"):
    """Asks how the agent is."""


Message = Attach | Flush | Goodbye | Ping | Status


def agent_socket(journal_dir: Path) -> Path:
    """Return where the agent of a journal directory listens; a private short path when the natural one is too long.

    Raises:
        PermissionError: when somebody else owns the place of the short paths, or may write there.
    """
    real = os.path.realpath(journal_dir)
    path = Path(real) / "agent.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
        return path
    directory = _SHORT_PATHS / f"jobledger-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    _refuse_unless_private(directory)
    return directory / f"{hashlib.sha256(os.fsencode(real)).hexdigest()[:16]}.sock"


def remove_dead_sockets() -> None:
    """Remove short paths on which nobody has listened for a day: what is left of agents that were killed."""
    oldest = time.time() - _SOCKET_LIFE
    for path in (_SHORT_PATHS / f"jobledger-{os.getuid()}").glob("*.sock"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest and not _is_listened_on(path):
                path.unlink()


def _is_listened_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def _refuse_unless_private(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{directory} must be a directory that only its owner can use; remove it, or give data_dir a shorter path"
        )


def ledger_fingerprint(url: str) -> str:
    """Return a name for a ledger that does not tell its password."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]
