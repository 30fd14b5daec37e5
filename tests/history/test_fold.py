"""The fold: any order and any repetition of a job's events give the same row, by a written precedence."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.fold import fold
from jobledger.history.job import Evidence, JobEnd, JobFacts, JobHistoryEntry, JobStatus, Progress

DAWN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def folded(events: Iterable[JobEvent]) -> JobHistoryEntry:
    entry: JobHistoryEntry | None = None
    for event in events:
        entry = fold(entry, event)
    assert entry is not None
    return entry


def event(kind: EventKind, seconds: float = 0, **fields: Any) -> JobEvent:
    return JobEvent(kind=kind, job_id="job", at=DAWN + timedelta(seconds=seconds), **fields)


def ended(status: JobStatus, seconds: float = 9, **fields: Any) -> JobEvent:
    end = JobEnd(status=status, at=DAWN + timedelta(seconds=seconds), **fields)
    return event(EventKind.ENDED, seconds, requeue=end.requeue, retries=end.retries, end=end)


def folded_in_any_order(*events: JobEvent) -> JobHistoryEntry:
    rows = [folded(order) for order in permutations(events)]
    assert all(row == rows[0] for row in rows)
    return rows[0]


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_order_gives_the_same_row(histories: st.SearchStrategy[list[JobEvent]], data: st.DataObject) -> None:
    events = data.draw(histories)
    assert folded(data.draw(st.permutations(events))) == folded(events)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_repetition_gives_the_same_row(histories: st.SearchStrategy[list[JobEvent]], data: st.DataObject) -> None:
    events = data.draw(histories)
    again = data.draw(st.lists(st.sampled_from(events), max_size=6))
    assert folded(data.draw(st.permutations(events + again))) == folded(events)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_job_has_at_most_one_effective_end_and_a_completion_is_final(
    histories: st.SearchStrategy[list[JobEvent]], data: st.DataObject
) -> None:
    events = data.draw(histories)
    entry = folded(events)
    assert entry.status.is_terminal == (entry.completed_at is not None)
    if any(event.end and event.end.status is JobStatus.COMPLETED for event in events):
        assert entry.status is JobStatus.COMPLETED


COMPLETED, FAILED, CANCELLED = JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        pytest.param(
            ended(COMPLETED), ended(FAILED, retries=1), id="a completion beats the failure of a later attempt"
        ),
        pytest.param(
            ended(COMPLETED), ended(CANCELLED, requeue=1), id="a completion beats the cancel of a later attempt"
        ),
        pytest.param(
            ended(CANCELLED, evidence=Evidence.VERDICT, retries=1),
            ended(FAILED),
            id="the higher attempt beats the stronger evidence",
        ),
        pytest.param(
            ended(FAILED, requeue=1), ended(CANCELLED, retries=5), id="a requeue counts more than Celery's retries"
        ),
        pytest.param(
            ended(CANCELLED, evidence=Evidence.OWN),
            ended(FAILED, evidence=Evidence.DEATH),
            id="the job's own end beats the evidence of a death",
        ),
        pytest.param(
            ended(CANCELLED, evidence=Evidence.DEATH),
            ended(FAILED, evidence=Evidence.VERDICT),
            id="the evidence of a death beats a verdict",
        ),
        pytest.param(
            ended(FAILED, evidence=Evidence.OWN),
            ended(FAILED, evidence=Evidence.VERDICT, provisional=True),
            id="a late real end corrects a verdict",
        ),
        pytest.param(ended(FAILED, run_id="a"), ended(CANCELLED, run_id="b"), id="FAILED comes before CANCELLED"),
        pytest.param(ended(FAILED, run_id="b"), ended(FAILED, run_id="a"), id="then the greater run decides"),
        pytest.param(ended(FAILED, 3), ended(FAILED, 4), id="then the earlier end decides"),
    ],
)
def test_the_precedence_of_ends_does_not_depend_on_their_arrival(winner: JobEvent, loser: JobEvent) -> None:
    assert folded_in_any_order(winner, loser).effective_end == winner.end


def test_an_end_is_overtaken_by_a_later_attempt_that_has_not_ended() -> None:
    entry = folded_in_any_order(ended(FAILED), event(EventKind.STARTED, 20, retries=1))
    assert (entry.status, entry.completed_at, entry.attempt) == (JobStatus.RUNNING, None, 2)


def test_a_requeue_puts_a_failed_job_back_into_the_queue() -> None:
    entry = folded_in_any_order(
        event(EventKind.STARTED), ended(FAILED, evidence=Evidence.VERDICT), event(EventKind.REQUEUED, 20, requeue=1)
    )
    assert (entry.status, entry.attempt) == (JobStatus.QUEUED, 2)


def test_an_end_names_its_attempt_even_when_its_event_does_not() -> None:
    end = JobEnd(status=FAILED, at=DAWN, retries=2)
    entry = folded_in_any_order(event(EventKind.STARTED), event(EventKind.ENDED, end=end))
    assert (entry.status, entry.attempt) == (FAILED, 3)


def test_a_celery_retry_waits_in_the_queue_with_its_error_and_its_time() -> None:
    due = DAWN + timedelta(minutes=1)
    retrying = event(EventKind.RETRYING, 5, text="server busy", next_attempt_at=due)
    entry = folded_in_any_order(event(EventKind.STARTED, 1, run_id="r1"), retrying)
    assert (entry.status, entry.attempt, entry.last_error) == (JobStatus.QUEUED, 2, "server busy")
    assert entry.next_attempt_at == due
    assert entry.run_id is None
    assert entry.started_at == DAWN + timedelta(seconds=1)


def test_the_latest_run_of_the_highest_attempt_is_the_one_that_is_shown() -> None:
    entry = folded_in_any_order(
        event(EventKind.STARTED, run_id="r9", worker_id="old", boot_id="b0"),
        event(EventKind.HANDED_OVER, retries=1, run_id="r1", worker_id="first", boot_id="b1"),
        event(EventKind.STARTED, retries=1, run_id="r2", worker_id="second", boot_id="b2"),
    )
    assert (entry.run_id, entry.run_worker_id, entry.run_boot_id) == ("r2", "second", "b2")
    assert entry.worker_id == "second"


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        (EventKind.SUBMITTED, EventKind.PUBLISHING),
        (EventKind.PUBLISHING, EventKind.RECEIVED),
        (EventKind.RECEIVED, EventKind.STARTED),
    ],
)
def test_the_facts_nearest_to_the_jobs_origin_are_kept(stronger: EventKind, weaker: EventKind) -> None:
    kept, dropped = JobFacts(task="a", queue="kept"), JobFacts(task="z", queue="dropped")
    assert folded_in_any_order(event(stronger, facts=kept), event(weaker, facts=dropped)).facts == kept


def test_the_facts_of_a_later_attempt_never_replace_those_of_the_first() -> None:
    first, later = JobFacts(task="a"), JobFacts(task="z")
    entry = folded_in_any_order(
        event(EventKind.RECEIVED, facts=first), event(EventKind.PUBLISHING, retries=1, facts=later)
    )
    assert entry.facts == first


def test_the_first_cancel_request_is_the_one_that_is_shown() -> None:
    entry = folded_in_any_order(
        event(EventKind.CANCEL_REQUESTED, 2, actor="bob"), event(EventKind.CANCEL_REQUESTED, 1, actor="ann")
    )
    assert (entry.cancel_actor, entry.cancel_requested_at) == ("ann", DAWN + timedelta(seconds=1))


@pytest.mark.parametrize("known", [{}, {"worker_id": ""}, {"worker_id": "w"}])
def test_unknown_and_empty_names_of_runs_and_actors_never_tie(known: dict[str, Any]) -> None:
    names: list[dict[str, Any]] = [{}, {"run_id": ""}, {"boot_id": ""}, known]
    runs = [event(EventKind.STARTED, retries=1, **fields) for fields in names]
    assert folded_in_any_order(*runs).run_id == ""
    folded_in_any_order(
        event(EventKind.CANCEL_REQUESTED),
        event(EventKind.CANCEL_REQUESTED, actor=""),
        event(EventKind.CANCEL_REQUESTED, reason=""),
    )


def test_a_job_that_finishes_although_its_cancel_was_delivered_is_completed_and_keeps_the_request() -> None:
    entry = folded_in_any_order(
        event(EventKind.CANCEL_REQUESTED, 1), event(EventKind.CANCEL_DELIVERED, 2, text="threads"), ended(COMPLETED)
    )
    assert entry.status is COMPLETED
    assert entry.cancel_requested_at is not None
    assert entry.cancel_obstacle == "threads"


def test_the_newest_progress_is_shown() -> None:
    entry = folded_in_any_order(
        event(EventKind.PROGRESS, 2, progress=Progress(done=1)),
        event(EventKind.PROGRESS, 1, progress=Progress(done=7)),
    )
    assert entry.progress == Progress(done=1)


@pytest.mark.parametrize("witness", [EventKind.PUBLISHED, EventKind.RECEIVED, EventKind.HANDED_OVER, EventKind.STARTED])
def test_an_uncertain_dispatch_is_settled_by_anybody_who_saw_the_message(witness: EventKind) -> None:
    lost = event(EventKind.DISPATCH_UNCERTAIN)
    assert folded([lost]).dispatch_uncertain
    assert not folded_in_any_order(lost, event(witness)).dispatch_uncertain


def test_an_unknown_end_before_the_jobs_other_events_makes_a_row_that_is_filled_in_later() -> None:
    early = folded([ended(FAILED)])
    assert (early.task, early.status) == (None, FAILED)
    late = fold(early, event(EventKind.SUBMITTED, facts=JobFacts(task="tasks.a")))
    assert (late.task, late.status, late.created_at) == ("tasks.a", FAILED, DAWN)
