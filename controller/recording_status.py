"""How the recording of this host stands: its agent, what waits in its journals, and what could not be recorded."""

from __future__ import annotations

from contextlib import closing

import msgspec

from ..errors import HistoryUnavailable
from ..history.agent_link import agent_is_silent, ask_agent
from ..history.job_history_store import JobHistoryStore, RecordingGap
from ..history.journal import JournalFile, journal_files
from ..settings import Settings
from .ledger import open_existing_ledger


class JournalBacklog(msgspec.Struct, frozen=True, kw_only=True):
    """One journal of this host."""

    journal: str
    #: The process that wrote it, from its start to its end, and its pool's children.
    boot_id: str
    size: int
    #: Bytes that are not in the ledger; ``None`` while that cannot be asked.
    waiting: int | None


class RecordingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The recording of one data directory."""

    directory: str
    #: ``records``, ``hangs`` or ``away``.
    agent: str
    agent_pid: int | None = None
    #: The names of the nodes that it serves.
    nodes: tuple[str, ...] = ()
    clients: int = 0
    #: Why events wait, if the agent says so.
    trouble: str | None = None
    #: Why the ledger could not be asked.
    ledger_problem: str | None = None
    journals: tuple[JournalBacklog, ...] = ()
    #: Of all hosts: what was dropped, and lines that could not be read; ``None`` while that cannot be asked.
    gaps: tuple[RecordingGap, ...] | None = None


def recording_status(settings: Settings) -> RecordingStatus:
    """Look at the recording of this host; starts and changes nothing, and says what it can while the ledger is away."""
    files = journal_files(settings.journal_dir)
    answer = ask_agent(settings, "status") or {}
    status = RecordingStatus(
        directory=str(settings.journal_dir),
        agent=agent_state(settings, answered=bool(answer)),
        agent_pid=answer.get("pid"),
        nodes=tuple(answer.get("nodes", ())),
        clients=answer.get("clients", 0),
        trouble=answer.get("trouble"),
    )
    try:
        with closing(open_existing_ledger(settings)) as store:
            return msgspec.structs.replace(status, journals=_backlogs(files, store), gaps=tuple(store.recording_gaps()))
    except HistoryUnavailable as error:
        return msgspec.structs.replace(status, journals=_backlogs(files, None), ledger_problem=str(error))


def agent_state(settings: Settings, *, answered: bool) -> str:
    """Return ``records``, ``hangs`` or ``away``."""
    if answered:
        return "records"
    return "hangs" if agent_is_silent(settings) else "away"


def _backlogs(files: list[JournalFile], store: JobHistoryStore | None) -> tuple[JournalBacklog, ...]:
    ends = store.journal_ends([file.name for file in files]) if store else None
    return tuple(_backlog(file, None if ends is None else ends.get(file.name, 0)) for file in files)


def _backlog(file: JournalFile, end: int | None) -> JournalBacklog:
    size = file.size()
    waiting = None if end is None else max(0, size - end)
    return JournalBacklog(journal=file.name, boot_id=file.boot_id, size=size, waiting=waiting)
