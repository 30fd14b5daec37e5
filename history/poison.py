"""Journal lines that could not be recorded: how they are kept, and how they are tried again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from ..errors import EventRefused
from .event import JobEvent
from .journal import CONTROL_PREFIX

if TYPE_CHECKING:
    from .job_history_store import JobHistoryStore

#: What a line can raise that has nothing to do with the ledger's state.
REFUSALS: Final = (EventRefused, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError)
#: Lines that are held in memory at a time.
_PAGE: Final = 100

TORN: Final = "its writer died in the middle of the line"


class PoisonPlace(NamedTuple):
    """Where a line stood."""

    journal: str
    offset: int

    def __str__(self) -> str:
        return f"{self.journal}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> PoisonPlace:
        """Return the place that a text names; raises ``ValueError`` for one that names none."""
        journal, colon, offset = text.rpartition(":")
        if not colon or not journal or not offset.isdecimal():
            raise ValueError(f"{text!r} is no id of a journal line; one looks like JOURNAL:BYTE")
        return cls(journal, int(offset))


class PoisonLine(msgspec.Struct, frozen=True, kw_only=True):
    """A journal line that was set aside."""

    journal: str
    #: Its first byte.
    offset: int
    line: bytes
    reason: str
    #: When it was set aside.
    recorded_at: datetime

    @property
    def place(self) -> PoisonPlace:
        """Where it stood; as text, its id."""
        return PoisonPlace(self.journal, self.offset)


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a line that was tried again."""

    line: PoisonLine
    #: Why it stays; ``None`` when it is recorded, or would be.
    obstacle: str | None = None


class _Dropped(msgspec.Struct, frozen=True):
    count: int = msgspec.field(name="@dropped")


class ReadLine(NamedTuple):
    """What a line says: an event, or how many events its writer could not write."""

    event: JobEvent | None = None
    dropped: int = 0


_decode_event = msgspec.json.Decoder(JobEvent).decode
_decode_dropped = msgspec.json.Decoder(_Dropped).decode


def read_line(line: bytes) -> ReadLine:
    """Return what a journal's line says; raises ``ValueError`` or ``RecursionError`` when it cannot be read."""
    if not line.endswith(b"\n"):
        raise ValueError(TORN)
    if line.startswith(CONTROL_PREFIX):
        return ReadLine(dropped=_decode_dropped(line).count)
    return ReadLine(event=_decode_event(line))


def poison_lines(store: JobHistoryStore) -> Iterator[PoisonLine]:
    """Yield all lines that were set aside, by their places; only a page of them is held in memory."""
    after = None
    while page := store.list_poison(after, _PAGE):
        yield from page
        after = page[-1].place


def replay(store: JobHistoryStore, *, dry_run: bool = False) -> Iterator[Replayed]:
    """Try every line that was set aside again, and yield what became of each.

    A line is removed in the transaction that records it; two who replay at once record it once. What still cannot
    be recorded stays, with its new reason. With ``dry_run`` nothing changes.

    Raises:
        HistoryUnavailable: when the ledger does not answer; what was yielded before is done.
    """
    for line in poison_lines(store):
        try:
            read = read_line(line.line)
            if not dry_run and not store.release_poison(line.place, read.event, read.dropped):
                continue
        except REFUSALS as error:
            reason = str(error) or type(error).__name__
            if not dry_run and reason != line.reason:
                store.blame_poison(line.place, reason)
            yield Replayed(line=line, obstacle=reason)
        else:
            yield Replayed(line=line)
