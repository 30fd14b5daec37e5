"""What the doctor says about the recording: what of it is missing, and how this host's agent is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..history.agent_link import agent_is_silent, ask_agent
from ..history.job_history_store import JobHistoryStore, RecordingGap
from ..history.journal import journal_files
from ..history.redaction import redact_text
from ..history.sums import Tally
from ..settings import Settings
from .finding import Finding, note, ok, serious

_SHOWN_REASON: Final = 120
_TALLIES: Final = {
    Tally.LATE_ENDS: (
        "ends were reported of jobs that had ended already.",
        "Each is kept as an event; the one that is known best counts.",
    ),
    Tally.DUPLICATE_RUNS: (
        "starts were reported of an attempt that another run had started.",
        "These jobs ran more than once: the broker gave their messages out again.",
    ),
    Tally.EVENTS_AFTER_REMOVAL: (
        "events came in about jobs that retention had removed.",
        "They are dropped: some host recorded very late.",
    ),
}


def recording_findings(store: JobHistoryStore) -> Iterator[Finding]:
    """Yield what was not recorded, or not as it should be, by any host."""
    gaps = sorted(store.recording_gaps(), key=lambda gap: gap.updated_at, reverse=True)
    yield from _dropped([gap for gap in gaps if gap.dropped])
    yield from _unreadable(store, sum(gap.poisoned for gap in gaps))
    if not gaps:
        yield ok("recording", "No event was ever dropped, and none is unreadable.")
    yield from _tallies(store)


def _dropped(gaps: list[RecordingGap]) -> Iterator[Finding]:
    if gaps:
        shown = ", ".join(f"{gap.journal} ({gap.dropped:,}, {gap.updated_at:%Y-%m-%d %H:%M} UTC)" for gap in gaps[:3])
        yield note(
            "recording",
            f"{sum(gap.dropped for gap in gaps):,} events of {len(gaps):,} journals were not written (full disk); "
            f"the newest: {shown}.",
            "The history of that time has holes.",
            "All of them: jobledger journal status",
        )


def _unreadable(store: JobHistoryStore, count: int) -> Iterator[Finding]:
    if not count:
        return
    newest = [f"{line.place} ({redact_text(line.reason)[:_SHOWN_REASON]})" for line in store.newest_poison(3)]
    yield note(
        "recording",
        f"{count:,} lines of journals cannot be read and were set aside; the newest: {', '.join(newest)}.",
        "What they say is missing in the history; nothing else is.",
        "See one: jobledger journal show ID. Try them again, for instance after an upgrade: jobledger journal replay",
    )


def _tallies(store: JobHistoryStore) -> Iterator[Finding]:
    for tally, count in store.counts().tallies.items():
        if count:
            what, consequence = _TALLIES[tally]
            yield note("recording", f"{count:,} {what}", consequence)


def agent_findings(settings: Settings) -> Iterator[Finding]:
    """Yield how the recording of this host stands."""
    status = ask_agent(settings, "status")
    backlog = sum(file.size() for file in journal_files(settings.journal_dir))
    if status is None:
        yield _silent_agent(settings) if agent_is_silent(settings) else _agent_is_away(backlog)
    elif status["trouble"]:
        yield serious(
            "agent",
            f"It cannot record: {status['trouble']}",
            f"{status['backlog_bytes']:,} bytes of events wait in {settings.journal_dir}; what stands there is safe.",
            "Bring the ledger back, or make room if a disk is full.",
        )
    else:
        yield ok(
            "agent",
            f"It records ({status['backlog_bytes']:,} bytes wait), for: {', '.join(status['nodes']) or 'no node'}.",
        )


def _silent_agent(settings: Settings) -> Finding:
    return serious(
        "agent",
        "It holds its place and does not answer: somebody has stopped it, or the machine is out of memory.",
        f"Events wait in {settings.journal_dir}; none is lost. Jobs run on.",
        "Its clients end it after half a minute where they may; else continue it, or kill -9 it: another one starts.",
    )


def _agent_is_away(backlog: int) -> Finding:
    if not backlog:
        return ok("agent", "It does not run, and nothing waits to be recorded.")
    return note(
        "agent",
        f"It does not run, and {backlog:,} bytes of events wait to be recorded.",
        "They are safe, and recorded at the next start.",
        "Start a worker here: jobledger up, or jobledger worker",
    )
