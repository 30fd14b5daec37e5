"""A job as an export shows it: one flat record, redacted, the same in every format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from .failure_group import failure_group_of
from .job import JobHistoryEntry
from .job_history_store import RecordedEvent
from .redaction import redact


class ColumnKind(StrEnum):
    """What a column of an export holds."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    #: Aware, in UTC.
    TIME = "time"
    #: Lists and maps; formats without them hold the JSON text.
    JSON = "json"


class ExportColumn(NamedTuple):
    """One field of each record."""

    name: str
    kind: ColumnKind
    read: Callable[[JobHistoryEntry], Any]


Record = dict[str, Any]


def _plain(kind: ColumnKind, *names: str) -> list[ExportColumn]:
    return [ExportColumn(name, kind, attrgetter(name)) for name in names]


def _fact(kind: ColumnKind, name: str) -> ExportColumn:
    return ExportColumn(name, kind, lambda entry: getattr(entry.facts, name) if entry.facts else None)


def _end(kind: ColumnKind, name: str, field: str | None = None) -> ExportColumn:
    def read(entry: JobHistoryEntry) -> Any:
        end = entry.effective_end
        return getattr(end, field or name) if end else None

    return ExportColumn(name, kind, read)


def _failure_group(entry: JobHistoryEntry) -> str | None:
    group = failure_group_of(entry)
    return group.fingerprint if group else None


def _json_text(column: ExportColumn) -> ExportColumn:
    return column._replace(kind=ColumnKind.JSON, read=lambda entry: _parsed(column.read(entry)))


_TEXT, _TIME = ColumnKind.TEXT, ColumnKind.TIME

#: The fields of each record, in their order.
COLUMNS: Final[tuple[ExportColumn, ...]] = (
    *_plain(_TEXT, "job_id"),
    ExportColumn("status", _TEXT, lambda entry: entry.status.value),
    *_plain(_TEXT, "task"),
    _fact(_TEXT, "queue"),
    _fact(ColumnKind.INTEGER, "priority"),
    *_plain(_TIME, "created_at", "started_at", "completed_at"),
    _end(ColumnKind.NUMBER, "runtime"),
    *_plain(ColumnKind.INTEGER, "attempt"),
    *_plain(_TEXT, "worker_id", "payload_summary"),
    ExportColumn("tags", ColumnKind.JSON, lambda entry: list(entry.facts.tags) if entry.facts else []),
    ExportColumn("metadata", ColumnKind.JSON, lambda entry: dict(entry.facts.metadata) if entry.facts else {}),
    _fact(_TEXT, "group_id"),
    _fact(_TEXT, "retry_of"),
    _fact(_TEXT, "root_id"),
    _json_text(_fact(_TEXT, "overrides")),
    _end(_TEXT, "failure_kind"),
    _end(_TEXT, "error_type"),
    *_plain(_TEXT, "last_error"),
    _end(_TEXT, "traceback"),
    ExportColumn("failure_group", _TEXT, _failure_group),
    _end(_TEXT, "end_detail", "detail"),
    _end(ColumnKind.BOOLEAN, "end_provisional", "provisional"),
    _json_text(_end(_TEXT, "result_ref")),
    *_plain(_TIME, "next_attempt_at", "cancel_requested_at"),
    *_plain(_TEXT, "cancel_actor", "cancel_reason"),
)
#: The parts of an event that hold JSON text.
_JSON_TEXTS: Final = (("facts", "overrides"), ("end", "result_ref"))
#: The field that holds a job's events, where they are exported.
EVENTS: Final = "events"
#: The field that holds a job's log, where it is exported.
LOG: Final = "log"


def exported(entry: JobHistoryEntry) -> Record:
    """Return the record of a job, in Python's own types, without its secrets."""
    record: Record = redact({column.name: column.read(entry) for column in COLUMNS})
    return record


def exported_events(events: Iterable[RecordedEvent]) -> list[Record]:
    """Return events or log lines as records, without their secrets, in JSON's own types."""
    return [_exported_event(recorded) for recorded in events]


def _exported_event(recorded: RecordedEvent) -> Record:
    fields = msgspec.to_builtins(recorded.event)
    del fields["job_id"]
    for part, name in _JSON_TEXTS:
        if name in fields.get(part, ()):
            fields[part][name] = _parsed(fields[part][name])
    record: Record = redact({"seq": recorded.seq, "recorded_at": msgspec.to_builtins(recorded.recorded_at), **fields})
    return record


def _parsed(text: str | None) -> Any:
    """A secret's name can be seen in the value that the text stands for, not in the text."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
