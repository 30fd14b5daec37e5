"""What people may see: values and texts without the secrets in them, and one line about a job's arguments.

Redaction is for eyes (summaries, errors, logs, exports, answers); what a job is repeated from stays verbatim.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

from .canonical import DEPTH_LIMIT, child_path
from .job import SUMMARY_LENGTH
from .secret_patterns import REDACTED, hide_password, is_password_key, is_secret_key, redact_text

__all__ = ["REDACTED", "find_secret", "hide_password", "is_secret_key", "redact", "redact_text", "summarise"]

_LABELS = ("name", "key", "header", "field")

# A secret that begins in the shown part of a text must be seen to its end.
_TEXT_WINDOW = 2_000
_SHOWN_VALUE = 48
_SHOWN_ITEMS = 4
_LONGEST_INT = 256
_PLAINLY_SHOWN = (date, time, timedelta, Decimal, PurePath, UUID)


def redact(value: Any) -> Any:
    """Return a copy of ``value`` in which every secret reads "[redacted]", by its key or by its shape.

    Walks through dicts, lists, tuples and texts; anything else is returned as it is, unless its key names a
    secret.
    """
    return _redact(value, 0)


def _redact(value: Any, depth: int) -> Any:
    if depth > DEPTH_LIMIT:
        return REDACTED
    match value:
        case str():
            return redact_text(value)
        case dict():
            hidden = _hidden_keys(value)
            return {
                redact_text(key) if isinstance(key, str) else key: REDACTED
                if key in hidden
                else _redact(item, depth + 1)
                for key, item in value.items()
            }
        case list() if _is_secret_pair(value):
            return [value[0], REDACTED]
        case list():
            return [_redact(item, depth + 1) for item in value]
        case tuple() if _is_secret_pair(value):
            return (value[0], REDACTED)
        case tuple():
            return tuple(_redact(item, depth + 1) for item in value)
    return value


def _hidden_keys(fields: dict[Any, Any]) -> set[Any]:
    hidden = {key for key, item in fields.items() if isinstance(key, str) and _is_secret(key, item)}
    label = next((fields[name] for name in _LABELS if isinstance(fields.get(name), str)), None)
    if label is not None and "value" in fields and _is_secret(label, fields["value"]):
        hidden.add("value")
    return hidden


def _is_secret_pair(items: list[Any] | tuple[Any, ...]) -> bool:
    """A header or a field as a pair of texts, as HTTP libraries take it."""
    return (
        len(items) == 2 and isinstance(items[0], str) and isinstance(items[1], str) and _is_secret(items[0], items[1])
    )


def _is_secret(key: str, value: Any) -> bool:
    return is_secret_key(key) and _says_something(value, is_password_key(key), 0)


def _says_something(value: Any, numbers_too: bool, depth: int) -> bool:
    match value:
        case None | bool() | float():
            return False
        case int():
            return numbers_too
        case str():
            return value.strip("* \t\r\n") not in {"", REDACTED}
        case dict():
            return _any_says_something(value.values(), numbers_too, depth)
        case list() | tuple():
            return _any_says_something(value, numbers_too, depth)
    return True


def _any_says_something(values: Iterable[Any], numbers_too: bool, depth: int) -> bool:
    return depth > DEPTH_LIMIT or any(_says_something(value, numbers_too, depth + 1) for value in values)


def find_secret(value: Any) -> str | None:
    """Return where ``value`` first holds something like a secret, as ``metadata.headers[0].token``.

    The answer never holds the secret itself. ``None`` means that ``redact`` would change nothing.
    """
    return next(_secrets(value, "", 0), None)


def _secrets(value: Any, path: str, depth: int) -> Iterator[str]:
    if depth > DEPTH_LIMIT:
        yield path
        return
    match value:
        case str():
            if redact_text(value) != value:
                yield path
        case dict():
            yield from _secrets_of_fields(value, path, depth)
        case list() | tuple() if _is_secret_pair(value):
            yield child_path(path, 1)
        case list() | tuple():
            for index, item in enumerate(value):
                yield from _secrets(item, child_path(path, index), depth + 1)


def _secrets_of_fields(fields: dict[Any, Any], path: str, depth: int) -> Iterator[str]:
    hidden = _hidden_keys(fields)
    for key, item in fields.items():
        shown = redact_text(key) if isinstance(key, str) else key
        inside = child_path(path, shown)
        if key in hidden or shown != key:
            yield inside
        else:
            yield from _secrets(item, inside, depth + 1)


def summarise(args: Any, kwargs: Any, limit: int = SUMMARY_LENGTH) -> str:
    """Return one line about a job's arguments for people, redacted: ``photo.jpg, width=800``.

    At most ``limit`` characters. Never raises, whatever the arguments are, and never calls their own ``repr``;
    the cost does not grow with their size.
    """
    try:
        return _summarise(args, kwargs, limit)
    except Exception:  # noqa: BLE001 - an argument's own code may raise anything, and the job must be sent all the same
        return "(arguments that cannot be shown)"[:limit]


def _summarise(args: Any, kwargs: Any, limit: int) -> str:
    parts: list[str] = []
    length = 0
    for part in _shown_arguments(args, kwargs):
        parts.append(part)
        length += len(part) + 2
        if length > limit:
            break
    return _cut(", ".join(parts), limit)


def _shown_arguments(args: Any, kwargs: Any) -> Iterator[str]:
    positional = args if isinstance(args, list | tuple) else () if args is None else (args,)
    for value in positional:
        yield _shown(value, 0)
    yield from _shown_fields(kwargs if isinstance(kwargs, dict) else {}, 0)


def _shown_fields(fields: dict[Any, Any], depth: int) -> Iterator[str]:
    for key, value in fields.items():
        name = _shown(key, depth)
        secret = isinstance(key, str) and _is_secret(key, value)
        yield f"{name}={REDACTED if secret else _shown(value, depth)}"


def _shown(value: Any, depth: int) -> str:
    match value:
        case None | bool() | float():
            return str(value)
        case enum.Enum():
            return _shown_text(value.name)
        case str():
            return _shown_text(str.__str__(value))
        case int():
            return int.__repr__(value) if value.bit_length() <= _LONGEST_INT else "(a long number)"
        case bytes() | bytearray():
            return f"({len(value)} bytes)"
        case dict():
            return _shown_several(_shown_fields(value, depth + 1), len(value), depth, "{}")
        case list() | tuple():
            if _is_secret_pair(value):
                return f"[{_shown_text(value[0])}, {REDACTED}]"
            return _shown_several((_shown(item, depth + 1) for item in value), len(value), depth, "[]")
        case _ if isinstance(value, _PLAINLY_SHOWN):
            return _shown_text(str(value))
    return f"({type(value).__name__})"


def _shown_several(items: Iterator[str], count: int, depth: int, brackets: str) -> str:
    if depth > 0 and count:
        return f"{brackets[0]}…{brackets[1]}"
    shown = [item for item, _ in zip(items, range(_SHOWN_ITEMS), strict=False)]
    more = [f"… {count} in all"] if count > _SHOWN_ITEMS else []
    return f"{brackets[0]}{', '.join(shown + more)}{brackets[1]}"


def _shown_text(text: str) -> str:
    line = _one_line(redact_text(text[:_TEXT_WINDOW]))
    if len(line) <= _SHOWN_VALUE:
        return line
    if "/" in line and " " not in line and "://" not in line:
        return "…" + line[1 - _SHOWN_VALUE :]
    return _cut(line, _SHOWN_VALUE)


def _one_line(text: str) -> str:
    if text.isprintable():
        return text.strip()
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"[:limit]
