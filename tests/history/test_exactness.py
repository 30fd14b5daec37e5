"""Exactness under any arrival: in whatever order and how often events come, rows and sums are those of a recount."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.fold import fold
from jobledger.history.job import Evidence, FailureKind, JobEnd, JobFacts, JobHistoryEntry, JobStatus
from jobledger.history.job_history_store import JobHistoryStore, JournalOffset
from jobledger.history.schema import job_labels
from jobledger.history.sql_store import SqlJobHistoryStore
from jobledger.history.sums import Tally
from sqlalchemy import select

from .recount import differences

_example = itertools.count()


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_after_any_appends_through_several_journals_rows_labels_and_sums_are_those_of_a_recount(
    store: JobHistoryStore, histories: st.SearchStrategy[list[JobEvent]], data: st.DataObject
) -> None:
    number = next(_example)
    lives = data.draw(st.lists(histories, min_size=1, max_size=4))
    events = [_labelled(event, f"{number}-{job}") for job, life in enumerate(lives) for event in _submitted_once(life)]
    again = data.draw(st.lists(st.sampled_from(events), max_size=6))
    arrival = data.draw(st.permutations(events + again))
    journals = {f"journal-{number}-{writer}": 0 for writer in range(3)}
    while arrival:
        size = data.draw(st.integers(1, len(arrival)))
        batch, arrival = arrival[:size], arrival[size:]
        moving = data.draw(st.sets(st.sampled_from(sorted(journals)), min_size=1))
        assert store.append(batch, [_move(journals, name, size) for name in moving])
        assert not store.append(batch, [_move(dict.fromkeys(journals, 10_000), name, 1) for name in moving])
    assert differences(store) == []
    assert _labels_of(store) == _labels_by_recount(store, number)
    for job_id in {event.job_id for event in events}:
        assert store.get_job(job_id) == _folded([event for event in events if event.job_id == job_id])


def test_a_batch_of_several_journals_is_recorded_wholly_or_not_at_all(store: JobHistoryStore) -> None:
    assert store.append([_started("a")], JournalOffset(journal="one", start=0, end=10))
    moves = [JournalOffset(journal="two", start=0, end=5), JournalOffset(journal="one", start=3, end=20)]
    assert not store.append([_started("b")], moves)
    assert store.get_job("b") is None
    assert store.journal_ends(["one", "two"]) == {"one": 10}
    assert store.append([_started("b")], [moves[0], JournalOffset(journal="one", start=10, end=20)])
    assert store.journal_ends(["one", "two"]) == {"one": 20, "two": 5}


def _end(status: JobStatus, evidence: Evidence, seconds: float, **fields: Any) -> JobEvent:
    at = now() + timedelta(seconds=seconds)
    end = JobEnd(status=status, at=at, evidence=evidence, run_id="run", **fields)
    return JobEvent(kind=EventKind.ENDED, job_id="job", at=at, end=end)


_SUCCESS = _end(JobStatus.COMPLETED, Evidence.OWN, 1, runtime=0.5)
_REVOKED = _end(JobStatus.CANCELLED, Evidence.VERDICT, 2)
_KILLED = _end(JobStatus.CANCELLED, Evidence.DEATH, 2)
_FAILURE = _end(JobStatus.FAILED, Evidence.OWN, 1, error_type="ValueError", failure_kind=FailureKind.EXCEPTION)
_LOST = _end(JobStatus.FAILED, Evidence.DEATH, 3, failure_kind=FailureKind.WORKER_LOST)
_VERDICT = _end(JobStatus.FAILED, Evidence.VERDICT, 4, failure_kind=FailureKind.WORKER_LOST, provisional=True)


@pytest.mark.parametrize("is_first_weaker", [True, False])
@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        pytest.param(_SUCCESS, _REVOKED, id="success and revoked"),
        pytest.param(_FAILURE, _REVOKED, id="failure and revoked"),
        pytest.param(_FAILURE, _KILLED, id="failure and terminated"),
        pytest.param(_FAILURE, _LOST, id="two failures"),
        pytest.param(_SUCCESS, _VERDICT, id="a verdict and the late real end"),
        pytest.param(_KILLED, _VERDICT, id="a verdict and the late proof of a death"),
    ],
)
def test_of_two_ends_of_one_run_the_stronger_counts_and_the_other_is_counted_as_late(
    store: JobHistoryStore, stronger: JobEvent, weaker: JobEvent, batches: int, is_first_weaker: bool
) -> None:
    ends = [weaker, stronger] if is_first_weaker else [stronger, weaker]
    for batch in [[_started("job"), *ends]] if batches == 1 else [[_started("job"), ends[0]], [ends[1]]]:
        store.append(batch)
    entry = store.get_job("job")
    assert entry is not None
    assert entry.effective_end == stronger.end
    assert [recorded.event for recorded in store.get_job_events("job")][1:] == ends
    assert store.counts().tallies[Tally.LATE_ENDS] == 1
    assert differences(store) == []


def _started(job_id: str) -> JobEvent:
    facts = JobFacts(task="tasks.a", queue="main", tags=("x", "y"), metadata=(("customer", "7"),))
    return JobEvent(kind=EventKind.STARTED, job_id=job_id, at=now(), run_id="run", facts=facts)


def _labelled(event: JobEvent, job_id: str) -> JobEvent:
    facts = event.facts and msgspec.structs.replace(event.facts, metadata=(("customer", event.facts.task),))
    return msgspec.structs.replace(event, job_id=job_id, facts=facts)


def _submitted_once(life: list[JobEvent]) -> list[JobEvent]:
    """Another submission of the same id is refused, whatever it says."""
    submissions = [event for event in life if event.kind is EventKind.SUBMITTED]
    return [event for event in life if event.kind is not EventKind.SUBMITTED or event is submissions[0]]


def _move(ends: dict[str, int], name: str, size: int) -> JournalOffset:
    start = ends[name]
    ends[name] = start + size
    return JournalOffset(journal=name, start=start, end=ends[name])


def _folded(events: Sequence[JobEvent]) -> JobHistoryEntry | None:
    entry = None
    for event in events:
        entry = fold(entry, event)
    return entry


def _labels_of(store: JobHistoryStore) -> Counter[Any]:
    if not isinstance(store, SqlJobHistoryStore):
        return Counter()
    with store._database.reading() as connection:
        return Counter(tuple(row) for row in connection.execute(select(job_labels)))


def _labels_by_recount(store: JobHistoryStore, examples: int) -> Counter[Any]:
    if not isinstance(store, SqlJobHistoryStore):
        return Counter()
    found: Counter[Any] = Counter()
    for entry in store.get_jobs([f"{number}-{job}" for number in range(examples + 1) for job in range(4)]).values():
        if entry.facts is not None:
            names = [("", tag) for tag in entry.facts.tags] + list(entry.facts.metadata)
            found.update({(*name, entry.status.value, entry.created_at, entry.job_id) for name in names})
    return found
