"""Nine places inside a picture."""

from __future__ import annotations

from typing import Literal

Position = Literal["top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right"]


def offset(position: Position, outer: tuple[int, int], inner: tuple[int, int], margin: int = 0) -> tuple[int, int]:
    """Return where the upper left corner of ``inner`` lies when it stands at ``position`` inside ``outer``."""
    across = _along(position, "left", "right", outer[0] - inner[0], margin)
    down = _along(position, "top", "bottom", outer[1] - inner[1], margin)
    return across, down


def _along(position: str, first: str, last: str, room: int, margin: int) -> int:
    if first in position:
        return min(margin, max(room, 0))
    if last in position:
        return max(room - margin, 0)
    return room // 2
