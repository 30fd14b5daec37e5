"""Times as people write them: so long ago, or a moment."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from ...errors import InvalidJob

_AGO: Final = re.compile(r"(?P<number>\d{1,6}) *(?P<unit>s|m|min|h|d|w)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def beginning(option: str, text: str, present: datetime) -> datetime:
    """Return the moment that ``6h`` (ago) or ``2026-11-20T08:00`` (on this user's clock, unless it says which) means.

    Raises:
        InvalidJob: for any other text.
    """
    try:
        ago = _AGO.fullmatch(text.strip().lower())
        if ago:
            return present - timedelta(**{_UNITS[ago["unit"]]: int(ago["number"])})
        return datetime.fromisoformat(text).astimezone(present.tzinfo)
    except (ValueError, OverflowError, OSError):
        raise InvalidJob(option, f"{text[:80]!r} is no time; write 30min, 6h, 7d, or 2026-11-20T08:00") from None
