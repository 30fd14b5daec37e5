"""A journal line that could not be recorded, as people may see it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from ..history.poison import PoisonLine, Replayed
from ..history.redaction import redact, redact_text

_SHOWN: Final = 20_000


class PoisonView(msgspec.Struct, frozen=True, kw_only=True):
    """A line that was set aside, redacted."""

    #: ``JOURNAL:BYTE``.
    id: str
    journal: str
    offset: int
    #: Bytes of the line.
    size: int
    reason: str
    recorded_at: datetime
    #: At most 20,000 characters of it.
    text: str


class ReplayedView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a line that was tried again."""

    id: str
    #: Whether it is recorded, or would be.
    recorded: bool
    reason: str | None = None


def poison_view(line: PoisonLine) -> PoisonView:
    """Return the line without the secrets in it."""
    return PoisonView(
        id=str(line.place),
        journal=line.journal,
        offset=line.offset,
        size=len(line.line),
        reason=redact_text(line.reason),
        recorded_at=line.recorded_at,
        text=_redacted(line.line)[:_SHOWN],
    )


def replayed_view(replayed: Replayed) -> ReplayedView:
    """Return what became of a line, without the line."""
    reason = None if replayed.obstacle is None else redact_text(replayed.obstacle)
    return ReplayedView(id=str(replayed.line.place), recorded=reason is None, reason=reason)


def _redacted(line: bytes) -> str:
    try:
        return msgspec.json.encode(redact(msgspec.json.decode(line))).decode()
    except (ValueError, RecursionError):
        return redact_text(line.decode(errors="replace"))
