"""Keeps a fork out of the moment between opening a descriptor and noting it where the child finds and closes it."""

from __future__ import annotations

import os
import threading
from typing import Final

#: Whoever holds it keeps all other threads from forking; to be held for a few milliseconds at most.
fork_guard: Final = threading.RLock()


def _renew() -> None:
    # A fork from C, without the hook before it, may leave it in the hands of a thread that is not here.
    fork_guard._at_fork_reinit()  # type: ignore[attr-defined]


os.register_at_fork(before=fork_guard.acquire, after_in_parent=fork_guard.release, after_in_child=_renew)
