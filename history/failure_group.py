"""Failures that are the same failure: a fingerprint of what was raised, what it said, and where."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from .failure_message import pattern_of
from .job import FailureKind, JobHistoryEntry, JobStatus

_FRAME: Final = re.compile(r'^[ |]*File "(?P<file>[^"\n]+)", line \d+, in (?P<function>.+)$', re.MULTILINE)
_CHAINED: Final = re.compile(
    r"\n(?:The above exception was the direct cause of|During handling of the above exception, another)[^\n]*\n"
)
#: Where the members of an exception group begin.
_MEMBERS: Final = re.compile(r"^ *\+-\+-", re.MULTILINE)
_SEPARATOR: Final = re.compile(r"[/\\]")
_NUMBER: Final = re.compile(r"\d+")
_INSTALLED: Final = re.compile(r"[/\\](?:site|dist)-packages[/\\](?P<package>[^/\\.]+)")
_OWN_ROOM: Final = re.escape(str(Path(__file__).parents[1])) + r"[/\\](?:controller|desktop|history|workers)[/\\]"
_FOREIGN: Final = re.compile(rf"^<|[/\\]lib[/\\]python\d[^/\\]*[/\\]|[/\\]celery[/\\]app[/\\]trace\.py$|^{_OWN_ROOM}")
#: The kinds whose traceback shows the user's code; any other failure happened around it.
_RAISED: Final = frozenset({FailureKind.EXCEPTION, FailureKind.INTERNAL})


class FailureGroup(NamedTuple):
    """What the failures of one group have in common."""

    fingerprint: str
    #: The exception's type, else the failure's kind.
    error_type: str
    #: The first line of the message, with what varies from job to job taken out.
    pattern: str
    #: The innermost frame of the user's own code, as ``folder/file:function``; else the task's name.
    frame: str


def failure_group_of(entry: JobHistoryEntry) -> FailureGroup | None:
    """Return the group of a failed job; ``None`` for every other job."""
    end = entry.effective_end
    if end is None or end.status is not JobStatus.FAILED:
        return None
    kind = end.failure_kind or FailureKind.EXCEPTION
    # A verdict's detail names nodes and times: evidence about one job, not what its failures have in common.
    traceback = (end.traceback or "") if kind in _RAISED else ""
    return _group(end.error_type or kind.value, end.error_message or "", traceback, entry.task or "")


@lru_cache(maxsize=1_024)
def _group(error_type: str, message: str, traceback: str, task: str) -> FailureGroup:
    said = message.removeprefix(error_type).removeprefix(":")
    pattern = pattern_of(said.strip(), error_type)
    frame = _users_frame(traceback, task.partition(".")[0]) or task
    text = "\x00".join((error_type, pattern, frame))
    return FailureGroup(hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16], error_type, pattern, frame)


def _users_frame(traceback: str, package: str) -> str:
    """The newest exception counts, then those that led to it; a library's frame, where no other is left."""
    blocks = [_frames(block) for block in reversed(_CHAINED.split(traceback))]
    own = (frame for block in blocks for frame in block if _is_own(frame["file"], package))
    frame = next(own, None) or next((frame for block in blocks for frame in block), None)
    return f"{_place(frame['file'])}:{frame['function']}" if frame else ""


def _frames(block: str) -> list[re.Match[str]]:
    return list(_FRAME.finditer(_MEMBERS.split(block)[0]))[::-1]


def _is_own(file: str, package: str) -> bool:
    installed = _INSTALLED.search(file)
    # Many install their own code beside the libraries: the task's name tells which it is.
    return installed["package"] == package if installed else not _FOREIGN.search(file)


def _place(file: str) -> str:
    *folders, name = _SEPARATOR.split(file)
    # A release's folder often carries its number or date.
    return "/".join([_NUMBER.sub("#", folder) for folder in folders[-1:] if folder] + [name])
