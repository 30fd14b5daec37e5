"""Failures that are the same failure: a fingerprint of what was raised, what it said, and where."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final, NamedTuple

from .job import FailureKind, JobEnd, JobStatus

#: Characters of a message that take part: what follows is mostly data.
_PATTERN_LENGTH: Final = 300

_VARIABLE: Final = re.compile(
    r"0x[0-9a-fA-F]+|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{16,}|\d+(?:[.:,/-]\d+)*"
)
_FRAME: Final = re.compile(r'^ *File "(?P<file>[^"]+)", line \d+, in (?P<function>.+)$', re.MULTILINE)
_SEPARATOR: Final = re.compile(r"[/\\]")
_FOREIGN: Final = re.compile(r"[/\\](site-packages|dist-packages|lib[/\\]python\d[^/\\]*)[/\\]|^<")


class FailureGroup(NamedTuple):
    """What the failures of one group have in common."""

    fingerprint: str
    error_type: str
    #: The message, with what varies from job to job replaced by ``#``.
    pattern: str
    #: The innermost frame of the user's own code, as ``file:function``; empty where no traceback names one.
    frame: str


def failure_group_of(end: JobEnd | None) -> FailureGroup | None:
    """Return the group of a failure; ``None`` for every other end."""
    if end is None or end.status is not JobStatus.FAILED:
        return None
    kind = end.failure_kind or FailureKind.EXCEPTION
    return _group(end.error_type or kind.value, end.error_message or end.detail or "", end.traceback or "")


@lru_cache(maxsize=4_096)
def _group(error_type: str, message: str, traceback: str) -> FailureGroup:
    pattern = _VARIABLE.sub("#", message)[:_PATTERN_LENGTH]
    frame = _users_frame(traceback)
    text = "\x00".join((error_type, pattern, frame))
    return FailureGroup(hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16], error_type, pattern, frame)


def _users_frame(traceback: str) -> str:
    frames = [(frame["file"], frame["function"]) for frame in _FRAME.finditer(traceback)]
    own = [frame for frame in frames if not _FOREIGN.search(frame[0])]
    if not (own or frames):
        return ""
    file, function = (own or frames)[-1]
    return f"{_SEPARATOR.split(file)[-1]}:{function}"
