"""The names of output files and directories: patterns, and text made safe for any file system."""

from __future__ import annotations

import hashlib
import re
from string import Formatter

#: What a file name pattern may hold, and what it stands for.
PLACEHOLDERS = {
    "name": "the picture's own name without its ending",
    "index": "its number in the job, from 1; {index:03} writes 001",
    "width": "its width in pixels",
    "height": "its height in pixels",
    "seed": "the job's seed",
}

_NUMBERS = frozenset({"index", "width", "height", "seed"})
_NUMBER_FORMAT = re.compile(r"(?:0?[1-9])?d?")
_PATTERN_LENGTH = 100
_NAME_BYTES = 120
_SAFE_DIRECTORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}")
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')


def checked_pattern(pattern: str) -> str:
    """Return ``pattern`` if it makes plain file names.

    Raises:
        ValueError: saying what is wrong, and which placeholders there are.
    """
    if not pattern.strip() or len(pattern) > _PATTERN_LENGTH:
        raise ValueError(f"must have 1 to {_PATTERN_LENGTH} characters")
    if _UNSAFE.search(pattern.translate({ord(":"): None})) or pattern.startswith("."):
        raise ValueError("must be a plain file name, without directories, and must not begin with a dot")
    for literal, field, spec, conversion in _parsed(pattern):
        if ":" in literal:
            raise ValueError("must be a plain file name, without ':'")
        if field is not None:
            _check_placeholder(field, spec or "", conversion)
    return pattern


def _parsed(pattern: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(pattern))
    except ValueError as error:
        raise ValueError(f"is not a pattern ({error}); known placeholders: {_known()}") from None


def _check_placeholder(field: str, spec: str, conversion: str | None) -> None:
    if field not in PLACEHOLDERS or conversion:
        raise ValueError(f"has no placeholder {{{field}}}; known ones: {_known()}")
    if spec and (field not in _NUMBERS or not _NUMBER_FORMAT.fullmatch(spec)):
        raise ValueError(f"cannot write {{{field}:{spec}}}; numbers take a width from 1 to 9, as in {{index:03}}")


def _known() -> str:
    return ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)


def file_stem(pattern: str, values: dict[str, str | int]) -> str:
    """Return the file name, without its ending, that a checked pattern makes of ``values``."""
    return safe_stem(pattern.format_map(values))


def safe_stem(text: str) -> str:
    """Return ``text`` as a visible file name that every file system takes, at most 120 bytes long."""
    visible = "".join(character if character.isprintable() else "_" for character in _UNSAFE.sub("_", text))
    short = visible.encode("utf-8", "replace")[:_NAME_BYTES].decode("utf-8", "ignore")
    return short.strip(". ") or "picture"


def directory_name(job_id: str) -> str:
    """Return the name of a job's output directory: its id, or for an unusual id a name that is as unique."""
    if _SAFE_DIRECTORY.fullmatch(job_id):
        return job_id
    return "job-" + hashlib.sha256(job_id.encode("utf-8", "replace")).hexdigest()[:32]
