"""One text for one value: the canonical JSON that snapshots and pipelines are compared by."""

from __future__ import annotations

import hashlib
import json
import math
import os
from typing import Any

#: How many lists and objects may stand inside each other; also what ends the walk through a cycle.
DEPTH_LIMIT = 100

_SHOWN_KEY = 60


class NotJson(ValueError):
    """Raised for a value that JSON cannot carry exactly; ``path`` names its place, ``problem`` the reason."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem


def canonical_json(value: object) -> str:
    """Return the one JSON text of ``value``: keys sorted, no spaces, unicode kept, integers as integers.

    Two values have the same text exactly when JSON carries them alike; so a tuple counts as a list.

    Raises:
        NotJson: for NaN, infinities, cycles, and everything that JSON has no word for.
    """
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJson("", f"cannot be written as JSON ({error})") from None


def digest(value: object) -> str:
    """Return the hexadecimal SHA-256 of the canonical JSON of ``value``; raises like ``canonical_json``."""
    # A message may carry half of a surrogate pair; it must have a digest all the same.
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def plain_json(value: object, path: str = "") -> Any:
    """Return a copy of ``value`` made of JSON's own types: tuples become lists, paths become text.

    Raises:
        NotJson: naming the first place that holds something else, for instance NaN, bytes or a date.
    """
    return _plain(value, path, 0)


def _plain(value: object, path: str, depth: int) -> Any:
    if depth > DEPTH_LIMIT:
        raise NotJson(path, f"is nested deeper than {DEPTH_LIMIT} levels")
    match value:
        case None | bool():
            return value
        case str():
            return _plain_text(value, path)
        case int():
            return int(value)
        case float():
            return _plain_number(value, path)
        case list() | tuple():
            return [_plain(item, child_path(path, index), depth + 1) for index, item in enumerate(value)]
        case dict():
            return {
                _plain_key(key, path): _plain(item, child_path(path, key), depth + 1) for key, item in value.items()
            }
        case os.PathLike():
            return _plain_text(os.fspath(value), path)
    raise NotJson(path, f"must be a JSON value (text, number, true, false, null, list, object), not {kind(value)}")


def _plain_text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise NotJson(path, "must be a path made of text, not of bytes")
    text = str.__str__(value)
    if any("\ud800" <= character <= "\udfff" for character in ([] if text.isascii() else text)):
        raise NotJson(path, "holds half of a surrogate pair, which UTF-8 cannot carry")
    return text


def _plain_number(value: float, path: str) -> float:
    if not math.isfinite(value):
        raise NotJson(path, f"must be a finite number, not {value}")
    return float(value)


def _plain_key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise NotJson(path, f"must have text as its keys, not {kind(key)}")
    return _plain_text(key, path)


def child_path(path: str, key: object) -> str:
    """Return the name of a place inside ``path``, as people write it: ``stages[1].settings.width``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    shown = "".join(character if character.isprintable() else "?" for character in str(key)[:_SHOWN_KEY])
    return f"{path}.{shown}" if path else shown


def kind(value: object) -> str:
    """Return what a value is, in JSON's words where it has one."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
