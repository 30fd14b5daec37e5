"""What one run writes to its job's log: redacted, in lines of bounded length, and never more than a ledger keeps."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from ..history.event_batch import LOG_LINES
from ..history.redaction import redact_text
from .token_bucket import TokenBucket

LINE_LENGTH: Final = 2_000
#: Lines a second that a run may write for long, after a burst of as many as the ledger keeps.
LINE_RATE: Final = 20
#: Lines that wait while a run writes too much: the newest ones, for they tell most about its end.
HELD_LINES: Final = 100
#: Characters of one text that are kept, and those that are looked at, so that no secret is seen cut.
_TEXT_LENGTH: Final = 100 * LINE_LENGTH
_WINDOW: Final = _TEXT_LENGTH + LINE_LENGTH


class LogLine(NamedTuple):
    """One line of a job's log; redacted."""

    at: datetime
    level: str
    text: str


class _Text(NamedTuple):
    at: float
    level: str
    text: str
    line_count: int


class JobLog:
    """The log of one run; safe for its threads.

    A run that writes too much loses lines in the middle, never its newest, and one line tells how many; it costs next
    to nothing then. The lines that are held back meanwhile are lost when the process is killed.
    """

    def __init__(self, write: Callable[[LogLine], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._bucket = TokenBucket(LOG_LINES, LINE_RATE, clock)
        self._held: deque[_Text] = deque()
        self._held_lines = 0
        self._dropped = 0
        # A signal's handler may log in the middle of a line.
        self._lock = threading.RLock()

    def add(self, text: str, level: str, at: float | None = None) -> None:
        """Write a text, or hold it back; ``at`` is a Unix time in seconds, now unless given."""
        kept = text[:_WINDOW]
        entry = _Text(time.time() if at is None else at, level, kept, kept.count("\n") + 1)
        with self._lock:
            self._hold(entry)
            if not self._bucket.is_empty():
                self.flush()

    def flush(self) -> None:
        """Write what is held back."""
        with self._lock:
            self._tell_gap()
            while self._held:
                self._write_text(self._next_held())

    def _hold(self, entry: _Text) -> None:
        self._held.append(entry)
        self._held_lines += entry.line_count
        while self._held_lines > HELD_LINES and len(self._held) > 1:
            self._dropped += self._next_held().line_count

    def _next_held(self) -> _Text:
        entry = self._held.popleft()
        self._held_lines -= entry.line_count
        return entry

    def _tell_gap(self) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            lines = f"{dropped:,} lines are left out here" if dropped > 1 else "1 line is left out here"
            told = f"({lines}: this run writes more than is kept)"
            self._write_text(_Text(self._held[0].at, "WARNING", told, 1))

    def _write_text(self, entry: _Text) -> None:
        at = datetime.fromtimestamp(entry.at, UTC)
        lines = _lines_of(entry.text)
        self._bucket.take(len(lines))
        for line in lines:
            self._write(LogLine(at, entry.level, line[:LINE_LENGTH]))


def _lines_of(text: str) -> list[str]:
    lines = redact_text(text)[:_TEXT_LENGTH].splitlines()
    if len(text) <= _TEXT_LENGTH and len(lines) <= LOG_LINES:
        return lines
    return [*lines[: LOG_LINES - 1], "(the rest of this text is left out)"]
