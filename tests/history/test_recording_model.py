"""Journals, two agents that crash between any two steps, and a ledger, against a model that only remembers."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.fold import fold
from jobledger.history.job import JobHistoryEntry
from jobledger.history.job_history_store import JobHistoryStore
from jobledger.history.journal import SUFFIX, Journal, journal_files
from jobledger.history.recorder import Recorder

from .recount import differences

_JOBS = 3
_WRITERS = 3
#: Steps of an agent are its calls of the ledger; this one kills it before the first of them, and so on.
_CRASHES = st.tuples(st.integers(0, 4), st.booleans())
_run = itertools.count()


class _Crash(BaseException):
    """The agent's process is gone."""


class _LedgerOfACrashingAgent:
    """Passes every call on, until the agent dies before or after one of them."""

    def __init__(self, store: JobHistoryStore) -> None:
        self._store = store
        self.dies_at: tuple[int, bool] | None = None

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            if self.dies_at is None:
                return call(*args, **kwargs)
            steps, is_done_first = self.dies_at
            self.dies_at = (steps - 1, is_done_first)
            if steps > 0:
                return call(*args, **kwargs)
            if is_done_first:
                call(*args, **kwargs)
            raise _Crash

        return called


class _Recording(RuleBasedStateMachine):
    store: JobHistoryStore
    directory: Path
    histories: st.SearchStrategy[list[JobEvent]]

    @initialize()
    def begin(self) -> None:
        self.number = next(_run)
        self.place = self.directory / str(self.number)
        self.place.mkdir()
        self.journals = [self._new_journal() for _ in range(_WRITERS)]
        self.ledgers = [_LedgerOfACrashingAgent(self.store) for _ in range(2)]
        self.agents = [self._new_agent(number) for number in range(2)]
        self.written: dict[str, list[JobEvent]] = {}

    @rule(data=st.data(), job=st.integers(0, _JOBS - 1), writer=st.integers(0, _WRITERS - 1))
    def write_what_happened_to_a_job(self, data: st.DataObject, job: int, writer: int) -> None:
        job_id = f"{self.number}-{job}"
        for event in data.draw(self.histories):
            renamed = msgspec.structs.replace(event, job_id=job_id)
            if renamed.kind is EventKind.SUBMITTED and self.written.get(job_id):
                continue
            assert self.journals[writer].append(renamed)
            self.written.setdefault(job_id, []).append(renamed)

    @rule(writer=st.integers(0, _WRITERS - 1), is_torn=st.booleans())
    def end_a_writer(self, writer: int, is_torn: bool) -> None:
        journal = self.journals[writer]
        file = journal._file
        if is_torn and file is not None:
            file.write(b'{"kind":"started","job_id":"nobody')
        journal.close()
        self.journals[writer] = self._new_journal()

    @rule(agent=st.integers(0, 1))
    def let_an_agent_work(self, agent: int) -> None:
        self.agents[agent].ship()

    @rule(agent=st.integers(0, 1), crash=_CRASHES)
    def kill_an_agent(self, agent: int, crash: tuple[int, bool]) -> None:
        self.ledgers[agent].dies_at = crash
        try:
            for _ in range(3):
                self.agents[agent].ship()
        except _Crash:
            self.agents[agent] = self._new_agent(agent)
        self.ledgers[agent].dies_at = None

    def teardown(self) -> None:
        if not hasattr(self, "agents"):
            return
        for journal in self.journals:
            journal.close()
        self._record_the_rest()
        for job_id, events in self.written.items():
            assert self.store.get_job(job_id) == _folded(events)
            assert self._recorded(job_id) == Counter(map(_text, _kept(events)))
        assert differences(self.store) == []

    def _record_the_rest(self) -> None:
        last = Recorder(self.place, self.store)
        for _ in range(10_000):
            if not journal_files(self.place):
                return
            last.expect_ends([file.name + SUFFIX for file in journal_files(self.place)])
            last.ship()
        raise AssertionError("the journals are not drained")

    def _recorded(self, job_id: str) -> Counter[bytes]:
        return Counter(_text(recorded.event) for recorded in self.store.get_job_events(job_id))

    def _new_agent(self, number: int) -> Recorder:
        return Recorder(self.place, self.ledgers[number])

    def _new_journal(self) -> Journal:
        return Journal(self.place, "boot", segment=2_000)


def test_every_event_is_recorded_once_whoever_crashes_when(
    store: JobHistoryStore, histories: st.SearchStrategy[list[JobEvent]], tmp_path: Path
) -> None:
    given_store, given_histories = store, histories

    class Recording(_Recording):
        store = given_store
        directory = tmp_path
        histories = given_histories

    run_state_machine_as_test(
        Recording,
        settings=settings(
            max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def _kept(events: list[JobEvent]) -> list[JobEvent]:
    return [event for event in events if event.kind not in (EventKind.PROGRESS, EventKind.LOG)]


def _text(event: JobEvent) -> bytes:
    return msgspec.json.encode(event)


def _folded(events: list[JobEvent]) -> JobHistoryEntry | None:
    entry = None
    for event in events:
        entry = fold(entry, event)
    return entry
