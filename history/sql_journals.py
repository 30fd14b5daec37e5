"""How far each journal is recorded, and what of it could not be."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Update,
    bindparam,
    case,
    delete,
    func,
    select,
    tuple_,
    update,
)

from .event import now
from .job_history_store import JournalOffset, RecordingGap
from .poison import PoisonLine, PoisonPlace
from .recordable import readable
from .schema import journals, poison_lines
from .sql_statements import insert_unless_there, select_listed


class JournalMoved(Exception):
    """Raised when the ledger holds a journal up to another byte; nothing may be kept of the transaction."""


def advance_journals(connection: Connection, offsets: Sequence[JournalOffset]) -> None:
    """Move each journal's end from its ``start`` to its ``end``; raises ``JournalMoved`` if one is not at ``start``."""
    # In one order, so that no two writers wait for each other.
    ordered = sorted(offsets, key=lambda offset: offset.journal)
    moment = now()
    new = [_unread(offset, moment) for offset in ordered if offset.start == 0]
    if new:
        connection.execute(insert_unless_there(connection.dialect.name, journals), new)
    if connection.execute(_ADVANCE, [_move(offset, moment) for offset in ordered]).rowcount != len(ordered):
        raise JournalMoved


def _unread(offset: JournalOffset, moment: datetime) -> dict[str, Any]:
    return {"name": offset.journal, "offset": 0, "dropped": offset.dropped, "updated_at": moment}


def _move(offset: JournalOffset, moment: datetime) -> dict[str, Any]:
    place = {"journal": offset.journal, "start": offset.start, "end": offset.end}
    return {**place, "moment": moment, "lost": offset.dropped}


def _advancing() -> Update:
    lost = bindparam("lost", type_=BigInteger)
    return (
        update(journals)
        .where(journals.c.name == bindparam("journal"), journals.c.offset == bindparam("start"))
        .values(
            offset=bindparam("end"),
            updated_at=bindparam("moment", type_=journals.c.updated_at.type),
            dropped=case((journals.c.dropped > lost, journals.c.dropped), else_=lost),
        )
    )


_ADVANCE = _advancing()


def journal_ends(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """Return up to which byte each of the journals is recorded; unknown ones are missing."""
    query, parameters = select_listed(connection, journals, "name", names)
    return {row.name: row.offset for row in connection.execute(query, parameters)}


def end_journal(connection: Connection, name: str) -> None:
    """Record that the journal's file is deleted, all of it recorded."""
    connection.execute(update(journals).where(journals.c.name == name).values(ended_at=now()))


def record_poison(connection: Connection, journal: str, offset: int, line: bytes, reason: str) -> None:
    """Set the line aside, once for each place."""
    row = {
        "journal": journal,
        "offset": offset,
        "line": line,
        "reason": readable(reason),
        "recorded_at": now(),
    }
    connection.execute(insert_unless_there(connection.dialect.name, poison_lines), row)


def list_poison(connection: Connection, after: PoisonPlace | None, limit: int) -> list[PoisonLine]:
    """Return lines by their places, those behind ``after``."""
    query = select(poison_lines).order_by(*_PLACE).limit(limit)
    if after is not None:
        query = query.where(tuple_(*_PLACE) > tuple_(*after))
    return _lines(connection, query)


def newest_poison(connection: Connection, limit: int) -> list[PoisonLine]:
    """Return the last lines by their places: names of journals rise with time."""
    return _lines(connection, select(poison_lines).order_by(*(column.desc() for column in _PLACE)).limit(limit))


def get_poison(connection: Connection, place: PoisonPlace) -> PoisonLine | None:
    """Return one line."""
    return next(iter(_lines(connection, select(poison_lines).where(_is_at(place)))), None)


def remove_poison(connection: Connection, place: PoisonPlace) -> bool:
    """Remove a line; False if it is not there."""
    return connection.execute(delete(poison_lines).where(_is_at(place))).rowcount == 1


def blame_poison(connection: Connection, place: PoisonPlace, reason: str) -> None:
    """Give a line another reason."""
    connection.execute(update(poison_lines).where(_is_at(place)).values(reason=readable(reason)))


def count_dropped(connection: Connection, journal: str, dropped: int) -> None:
    """Raise the number of events that a journal's writer could not write."""
    fewer = (journals.c.name == journal) & (journals.c.dropped < dropped)
    connection.execute(update(journals).where(fewer).values(dropped=dropped))


_PLACE = (poison_lines.c.journal, poison_lines.c.offset)


def _is_at(place: PoisonPlace) -> ColumnElement[bool]:
    return (poison_lines.c.journal == place.journal) & (poison_lines.c.offset == place.offset)


def _lines(connection: Connection, query: Select[Any]) -> list[PoisonLine]:
    return [PoisonLine(**row) for row in connection.execute(query).mappings()]


def recording_gaps(connection: Connection) -> list[RecordingGap]:
    """Return the journals with dropped or unreadable events, by name."""
    dropped = select(journals.c.name, journals.c.dropped, journals.c.updated_at).where(journals.c.dropped > 0)
    gaps = {row.name: _gap(row.name, row.updated_at, dropped=row.dropped) for row in connection.execute(dropped)}
    poisoned = select(
        poison_lines.c.journal,
        func.count().label("lines"),
        func.max(poison_lines.c.recorded_at).label("newest"),
    ).group_by(poison_lines.c.journal)
    for row in connection.execute(poisoned):
        known = gaps.get(row.journal) or _gap(row.journal, row.newest)
        updated_at = max(known.updated_at, row.newest)
        gaps[row.journal] = _gap(row.journal, updated_at, dropped=known.dropped, poisoned=row.lines)
    return [gaps[name] for name in sorted(gaps)]


def _gap(journal: str, updated_at: datetime, *, dropped: int = 0, poisoned: int = 0) -> RecordingGap:
    return RecordingGap(journal=journal, dropped=dropped, poisoned=poisoned, updated_at=updated_at)
