"""Ledgers to test against, each fresh and removed afterwards, and the histories that jobs can have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.job import Evidence, FailureKind, JobEnd, JobFacts, JobStatus, Progress
from jobledger.history.job_history_store import JobHistoryStore
from jobledger.history.memory_store import MemoryJobHistoryStore
from jobledger.history.sql_store import SqlJobHistoryStore

DAWN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger' / 'ledger.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def open_store() -> Iterator[Callable[[str], SqlJobHistoryStore]]:
    opened: list[SqlJobHistoryStore] = []

    def open_it(url: str) -> SqlJobHistoryStore:
        opened.append(SqlJobHistoryStore.open(url))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, open_store: Callable[[str], SqlJobHistoryStore]) -> JobHistoryStore:
    if request.param == "memory":
        return MemoryJobHistoryStore()
    return open_store(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(scope="session")
def histories() -> st.SearchStrategy[list[JobEvent]]:
    """Everything that observers may say about one job: what happens, and what never should."""
    return st.one_of(_lives(), st.lists(_any_event(), min_size=1, max_size=8))


def _any_event() -> st.SearchStrategy[JobEvent]:
    moments = st.integers(0, 3).map(lambda step: DAWN + timedelta(microseconds=step))
    texts = st.sampled_from([None, "", "a", "b"])
    attempts = st.sampled_from([0, 0, 1, 2])
    ends = st.builds(
        JobEnd,
        status=st.sampled_from([JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED]),
        at=moments,
        requeue=attempts,
        retries=attempts,
        evidence=st.sampled_from(list(Evidence)),
        run_id=texts,
        worker_id=texts,
        detail=texts,
        failure_kind=st.sampled_from([None, FailureKind.EXCEPTION, FailureKind.WORKER_LOST]),
        error_message=texts,
        runtime=st.sampled_from([None, 0.0, 2.5]),
        provisional=st.booleans(),
    )
    facts = st.builds(
        JobFacts,
        task=st.sampled_from(["tasks.a", "tasks.b"]),
        queue=texts,
        priority=st.sampled_from([None, 0, 9]),
        tags=st.sampled_from([(), ("x", "y")]),
        cancel_grace=st.sampled_from([None, 0.0, 1.5]),
    )
    progress = st.builds(Progress, done=st.sampled_from([0.0, 1.0, 2.5]), total=st.sampled_from([None, 4.0]))
    return st.builds(
        JobEvent,
        kind=st.sampled_from(list(EventKind)),
        job_id=st.just("job"),
        at=moments,
        requeue=attempts,
        retries=attempts,
        run_id=texts,
        worker_id=texts,
        boot_id=texts,
        facts=st.none() | facts,
        end=st.none() | ends,
        next_attempt_at=st.none() | moments,
        actor=texts,
        reason=texts,
        progress=st.none() | progress,
        text=texts,
    )


@st.composite
def _lives(draw: st.DrawFn) -> list[JobEvent]:
    """A job with its attempts and runs, some of which end twice, die, or are cancelled."""
    life = [_event(EventKind.SUBMITTED, 0, facts=JobFacts(task="tasks.a", queue="main", priority=3))]
    life.append(_event(EventKind.PUBLISHED, 1, facts=JobFacts(task="tasks.a")))
    for number in range(draw(st.integers(0, 3))):
        requeue = draw(st.integers(0, 1))
        life += draw(_attempt(start=10 * (number + 1), requeue=requeue, retries=number))
    if draw(st.booleans()):
        life.append(_event(EventKind.CANCEL_REQUESTED, draw(st.integers(0, 50)), actor="ann"))
    return life


@st.composite
def _attempt(draw: st.DrawFn, start: int, requeue: int, retries: int) -> list[JobEvent]:
    events = [_event(EventKind.RECEIVED, start, requeue, retries, facts=JobFacts(task="tasks.a", queue="raw"))]
    for run in range(draw(st.integers(1, 2))):
        observer = {"run_id": f"run-{start}-{run}", "worker_id": f"node-{run}", "boot_id": f"boot-{run}"}
        events.append(_event(EventKind.HANDED_OVER, start + 1, requeue, retries, **observer))
        events.append(_event(EventKind.STARTED, start + 2, requeue, retries, **observer))
        events.append(_event(EventKind.PROGRESS, start + 3, requeue, retries, progress=Progress(done=run)))
        events += [_ended(draw, start + 4 + twice, requeue, retries, run) for twice in range(draw(st.integers(0, 2)))]
    if draw(st.booleans()):
        due = DAWN + timedelta(seconds=start + 9)
        events.append(_event(EventKind.RETRYING, start + 6, requeue, retries, text="again", next_attempt_at=due))
    return events


def _ended(draw: st.DrawFn, at: int, requeue: int, retries: int, run: int) -> JobEvent:
    status = draw(st.sampled_from([JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED]))
    end = JobEnd(
        status=status,
        at=DAWN + timedelta(seconds=at),
        requeue=requeue,
        retries=retries,
        evidence=draw(st.sampled_from(list(Evidence))),
        run_id=f"run-{run}",
    )
    return _event(EventKind.ENDED, at, requeue, retries, end=end)


def _event(kind: EventKind, seconds: int, requeue: int = 0, retries: int = 0, **fields: Any) -> JobEvent:
    at = DAWN + timedelta(seconds=seconds)
    return JobEvent(kind=kind, job_id="job", at=at, requeue=requeue, retries=retries, **fields)
