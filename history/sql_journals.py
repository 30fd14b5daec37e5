"""How far each journal is recorded, and what of it could not be."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import BigInteger, Connection, Update, bindparam, case, func, select, update

from .event import now
from .job_history_store import JournalOffset, RecordingGap
from .recordable import readable
from .schema import journals, poison_lines
from .sql_statements import insert_unless_there, select_listed


def advance_journal(connection: Connection, offset: JournalOffset) -> bool:
    """Move the journal's end from ``start`` to ``end``; False, and no change, if it is not at ``start``."""
    seen = {"updated_at": now(), "dropped": offset.dropped}
    if offset.start == 0:
        new = {"name": offset.journal, "offset": 0, **seen}
        connection.execute(insert_unless_there(connection.dialect.name, journals), new)
    place = {"journal": offset.journal, "start": offset.start, "end": offset.end}
    return connection.execute(_ADVANCE, {**place, "moment": seen["updated_at"], "lost": offset.dropped}).rowcount == 1


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
