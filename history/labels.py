"""What a submitter may say about a job beside its arguments: tags, a group, metadata.

Labels are kept and shown as they are, and people filter by them. So one that looks like a secret is refused, not
hidden: nobody would find a hidden one again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ..errors import InvalidJob
from .redaction import find_secret, redact_text

TAG_COUNT: Final = 20
TAG_LENGTH: Final = 100
GROUP_LENGTH: Final = 255
METADATA_COUNT: Final = 20
METADATA_KEY_LENGTH: Final = 100
METADATA_VALUE_LENGTH: Final = 200

_REFUSED: Final = (
    "looks like a secret (a password, token, key or signed URL). Take it out: labels are kept and shown; secrets "
    "belong in the worker's settings or environment"
)


def checked_tags(value: object) -> tuple[str, ...]:
    """Return a job's tags, each once, sorted; raises ``InvalidJob`` for what cannot be one."""
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence) or len(value) > TAG_COUNT:
        raise InvalidJob("tags", f"must be a list of at most {TAG_COUNT} words")
    return tuple(sorted({_text("tags", tag, TAG_LENGTH) for tag in value}))


def checked_group(value: object) -> str | None:
    """Return a job's group; raises ``InvalidJob`` for what cannot be one."""
    return None if value is None else _text("group_id", value, GROUP_LENGTH)


def checked_metadata(value: object) -> tuple[tuple[str, str], ...]:
    """Return a job's metadata, sorted by key; raises ``InvalidJob`` naming the item that cannot be one."""
    if not isinstance(value, Mapping) or len(value) > METADATA_COUNT:
        raise InvalidJob("metadata", f"must be an object with at most {METADATA_COUNT} names")
    items = sorted((_text("metadata", key, METADATA_KEY_LENGTH), item) for key, item in value.items())
    place = find_secret({"metadata": dict(items)})
    if place is not None:
        raise InvalidJob(place, _REFUSED)
    return tuple((key, _text(f"metadata.{key}", item, METADATA_VALUE_LENGTH)) for key, item in items)


def _text(field: str, value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise InvalidJob(field, f"must be text, not {type(value).__name__}")
    if not 0 < len(value) <= limit or not value.isprintable() or value.isspace():
        raise InvalidJob(field, f"must be 1 to {limit} printable characters")
    if redact_text(value) != value:
        raise InvalidJob(field, _REFUSED)
    return value
