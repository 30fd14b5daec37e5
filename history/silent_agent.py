"""Ends an agent that lives but does not answer, so that another one can take its place.

That is safe: what it has not recorded stands in the journals, and a batch that it was about to record counts only if
nobody else has recorded it meanwhile. What must not happen is that another process is killed in its stead.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from pathlib import Path
from typing import Final

_PROGRAM: Final = b"\0jobledger.history.agent\0"
_CREDENTIALS: Final = struct.Struct("3i")
#: Seconds that a killed process gets to be gone.
_DEATH: Final = 2.0


def end_silent_agent(connection: socket.socket, journal_dir: Path) -> bool:
    """Kill the agent at the other end of a connection; return whether it is gone.

    Nothing happens unless the process is provably this user's agent of this directory: the kernel names who
    listens at the other end, and the process of that number must hold the directory's lock file open. One that
    cannot be seen from here, as in another container, is left alone.
    """
    pid, owner = _peer(connection)
    if pid <= 0 or owner != os.geteuid() or not hasattr(os, "pidfd_open"):
        return False
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # The number is only looked at while the descriptor is held: if another process has it by now, the descriptor
        # still means the old one, and the signal goes nowhere.
        return _is_agent_of(pid, journal_dir) and _kill(process)
    finally:
        os.close(process)


def _peer(connection: socket.socket) -> tuple[int, int]:
    if not hasattr(socket, "SO_PEERCRED"):
        return 0, -1
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, owner, _ = _CREDENTIALS.unpack(found)
    return pid, owner


def _is_agent_of(pid: int, journal_dir: Path) -> bool:
    process = Path("/proc", str(pid))
    try:
        lock = (journal_dir / "agent.lock").stat()
        return _PROGRAM in (process / "cmdline").read_bytes() and any(
            os.path.samestat(lock, descriptor.stat()) for descriptor in (process / "fd").iterdir()
        )
    except OSError:
        return False


def _kill(process: int) -> bool:
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    readable, _, _ = select.select([process], [], [], _DEATH)
    return bool(readable)
