"""What may enter a ledger: any event that a journal can carry, and no other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ..errors import EventRefused
from .event import JobEvent
from .job import JobId, Snapshot

_decode = msgspec.json.Decoder(JobEvent).decode
_NUL = b"\\u0000"


class RecordableEvent(msgspec.Struct, frozen=True, gc=False):
    """An event exactly as every ledger gives it back, its texts free of what no database takes.

    Only ``recordable`` and ``recordable_line`` make one.
    """

    #: Without its snapshot.
    event: JobEvent
    snapshot: Snapshot | None
    #: The event as JSON: what a ledger keeps of it.
    text: str


def recordable(event: JobEvent) -> RecordableEvent:
    """Return the event as a ledger takes it, whatever it came from.

    Raises:
        EventRefused: when the event breaks its own types, for instance by a naive time or an overlong id.
    """
    if "\x00" in event.job_id:
        raise EventRefused(f"An event of kind {event.kind} cannot be recorded: its job's id holds a NUL character.")
    try:
        text = _carried(event)
        return _parted(_decode(text), text)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise EventRefused(f"An event of kind {event.kind} cannot be recorded: {error}.") from None


def recordables(events: Iterable[JobEvent | RecordableEvent]) -> list[RecordableEvent]:
    """Return each event as a ledger takes it; raises what ``recordable`` raises."""
    return [event if isinstance(event, RecordableEvent) else recordable(event) for event in events]


def recordable_line(line: bytes) -> RecordableEvent:
    """Return the event of a journal's line as a ledger takes it; mostly the line itself is what it keeps.

    Raises:
        ValueError: when the line is no event.
        EventRefused: see ``recordable``.
    """
    event = _decode(line)
    if _NUL in line:
        return recordable(event)
    return RecordableEvent(event, None, line.decode()) if event.snapshot is None else _parted(event, line)


def _parted(event: JobEvent, text: bytes) -> RecordableEvent:
    if event.snapshot is None:
        return RecordableEvent(event, None, text.decode())
    bare = msgspec.structs.replace(event, snapshot=None)
    return RecordableEvent(bare, event.snapshot, msgspec.json.encode(bare).decode())


def is_job_id(text: str) -> bool:
    """Whether a recorded job can have this id at all."""
    try:
        msgspec.convert(text, JobId)
    except msgspec.ValidationError:
        return False
    return is_text(text)


def is_text(text: str) -> bool:
    """Whether a database can hold the text as it is."""
    return text == readable(text)


def readable(text: str) -> str:
    """Return the text without NUL characters and lone surrogates, which databases refuse."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()


def _carried(event: JobEvent) -> bytes:
    try:
        text = msgspec.json.encode(event)
    except UnicodeEncodeError:
        return _cleaned(event)
    return _cleaned(event) if _NUL in text else text


def _cleaned(event: JobEvent) -> bytes:
    # The id stays as it is: it is refused by its type rather than turned into some other job's.
    return msgspec.json.encode({**_clean(msgspec.to_builtins(event)), "job_id": event.job_id})


def _clean(value: Any) -> Any:
    match value:
        case str():
            return readable(value)
        case list():
            return [_clean(item) for item in value]
        case dict():
            return {key: _clean(item) for key, item in value.items()}
        case _:
            return value
