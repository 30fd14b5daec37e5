"""The merge of ledger and live facts: one expected row for each cell, then filter, limit and what is odd."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from jobledger.controller.job_view import JobViewModel, LiveSource
from jobledger.controller.live_facts import LAST_WORD_LIFETIME, LiveFact, LiveSnapshot, LiveState, NodeAnswer
from jobledger.controller.merge import foreign_jobs, merge, merge_job
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.fold import fold
from jobledger.history.job import Evidence, JobEnd, JobFacts, JobHistoryEntry, JobStatus

#: The moment of every test: by the monotonic clock, and by the wall's.
NOW = 1_000.0
TODAY = datetime(2030, 1, 1, 12, tzinfo=UTC)
A, B = "celery@a", "celery@b"
JOB = "0190-job"

QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED = JobStatus


def ago(seconds: float) -> datetime:
    return TODAY - timedelta(seconds=seconds)


def entry_of(status: JobStatus, *, job_id: str = JOB, since: float = 0.5) -> JobHistoryEntry:
    """Return an entry that came to its status ``since`` seconds ago."""
    facts = JobFacts(task="pictures.enhance", queue="pictures", priority=5)
    events = [JobEvent(kind=EventKind.SUBMITTED, job_id=job_id, at=ago(since + 60), facts=facts)]
    if status is not QUEUED:
        start = ago(since if status is RUNNING else since + 30)
        events.append(
            JobEvent(kind=EventKind.STARTED, job_id=job_id, at=start, worker_id=A, boot_id="boot-1", run_id="run-1")
        )
    if status.is_terminal:
        end = JobEnd(status=status, at=ago(since), worker_id=A, run_id="run-1")
        events.append(JobEvent(kind=EventKind.ENDED, job_id=job_id, at=ago(since), end=end))
    return folded(events)


def folded(events: list[JobEvent]) -> JobHistoryEntry:
    entry: JobHistoryEntry | None = None
    for event in events:
        entry = fold(entry, event)
    assert entry is not None
    return entry


def fact(state: LiveState, node: str = A, *, job_id: str = JOB, age: float = 0.0) -> LiveFact:
    return LiveFact(
        job_id=job_id,
        state=state,
        node=node,
        at=NOW - age,
        asked_at=ago(age),
        task="pictures.enhance",
        queue="pictures",
        priority=2,
        started_at=ago(age + 5) if state is LiveState.ACTIVE else None,
        due_at=ago(-30) if state is LiveState.SCHEDULED else None,
    )


def answer(node: str = A, *, age: float | None = 0.0, workers: int = 1, boot_id: str = "boot-1") -> NodeAnswer:
    if age is None:
        return NodeAnswer(node=node, boot_id=boot_id)
    return NodeAnswer(node=node, at=NOW - age, asked_at=ago(age), boot_id=boot_id, workers=workers)


def snapshot(*nodes: NodeAnswer, facts: tuple[LiveFact, ...] = ()) -> LiveSnapshot:
    by_job: dict[str, tuple[LiveFact, ...]] = {}
    for each in facts:
        by_job[each.job_id] = (*by_job.get(each.job_id, ()), each)
    return LiveSnapshot(taken_at=NOW, nodes={node.node: node for node in nodes}, facts=by_job)


#: What the nodes say about the job, or why they say nothing.
LIVE = {
    "active": snapshot(answer(), facts=(fact(LiveState.ACTIVE),)),
    "reserved": snapshot(answer(), facts=(fact(LiveState.RESERVED),)),
    "scheduled": snapshot(answer(), facts=(fact(LiveState.SCHEDULED),)),
    "absent": snapshot(answer()),
    "node silent": snapshot(answer(age=10)),
    "no node": snapshot(),
    "duplicate node name": snapshot(answer(workers=2), facts=(fact(LiveState.ACTIVE),)),
    "nobody asked": None,
}

#: The ledger's status, what the nodes say, whether the ledger knew it just now or a minute ago: and the one row.
CELLS = {
    (QUEUED, "active", "now"): (RUNNING, "worker", A),
    (QUEUED, "reserved", "now"): (QUEUED, "worker", A),
    (QUEUED, "scheduled", "now"): (QUEUED, "worker", A),
    (QUEUED, "absent", "now"): (QUEUED, "history", None),
    (QUEUED, "node silent", "now"): (QUEUED, "history", None),
    (QUEUED, "no node", "now"): (QUEUED, "history", None),
    (QUEUED, "duplicate node name", "now"): (RUNNING, "worker", A),
    (QUEUED, "nobody asked", "now"): (QUEUED, "history", None),
    (RUNNING, "active", "now"): (RUNNING, "worker", A),
    (RUNNING, "reserved", "now"): (RUNNING, "history", A),
    (RUNNING, "scheduled", "now"): (RUNNING, "history", A),
    (RUNNING, "absent", "now"): (RUNNING, "history", A),
    (RUNNING, "node silent", "now"): (RUNNING, "stale", A),
    (RUNNING, "no node", "now"): (RUNNING, "stale", A),
    (RUNNING, "duplicate node name", "now"): (RUNNING, "worker", A),
    (RUNNING, "nobody asked", "now"): (RUNNING, "history", A),
    (COMPLETED, "active", "now"): (COMPLETED, "history", A),
    (COMPLETED, "reserved", "now"): (COMPLETED, "history", A),
    (COMPLETED, "scheduled", "now"): (COMPLETED, "history", A),
    (COMPLETED, "absent", "now"): (COMPLETED, "history", A),
    (COMPLETED, "node silent", "now"): (COMPLETED, "history", A),
    (COMPLETED, "no node", "now"): (COMPLETED, "history", A),
    (COMPLETED, "duplicate node name", "now"): (COMPLETED, "history", A),
    (COMPLETED, "nobody asked", "now"): (COMPLETED, "history", A),
    (FAILED, "active", "now"): (FAILED, "history", A),
    (FAILED, "reserved", "now"): (FAILED, "history", A),
    (FAILED, "scheduled", "now"): (FAILED, "history", A),
    (FAILED, "absent", "now"): (FAILED, "history", A),
    (FAILED, "node silent", "now"): (FAILED, "history", A),
    (FAILED, "no node", "now"): (FAILED, "history", A),
    (FAILED, "duplicate node name", "now"): (FAILED, "history", A),
    (FAILED, "nobody asked", "now"): (FAILED, "history", A),
    (CANCELLED, "active", "now"): (CANCELLED, "history", A),
    (CANCELLED, "reserved", "now"): (CANCELLED, "history", A),
    (CANCELLED, "scheduled", "now"): (CANCELLED, "history", A),
    (CANCELLED, "absent", "now"): (CANCELLED, "history", A),
    (CANCELLED, "node silent", "now"): (CANCELLED, "history", A),
    (CANCELLED, "no node", "now"): (CANCELLED, "history", A),
    (CANCELLED, "duplicate node name", "now"): (CANCELLED, "history", A),
    (CANCELLED, "nobody asked", "now"): (CANCELLED, "history", A),
    # An answer that is clearly later than what the ledger knows is news: the status stays, and it is shown.
    (RUNNING, "reserved", "long ago"): (RUNNING, "worker", A),
    (RUNNING, "scheduled", "long ago"): (RUNNING, "worker", A),
    (RUNNING, "absent", "long ago"): (RUNNING, "history", A),
    (COMPLETED, "active", "long ago"): (COMPLETED, "worker", A),
    (COMPLETED, "reserved", "long ago"): (COMPLETED, "worker", A),
    (COMPLETED, "scheduled", "long ago"): (COMPLETED, "worker", A),
    (COMPLETED, "duplicate node name", "long ago"): (COMPLETED, "worker", A),
    (FAILED, "active", "long ago"): (FAILED, "worker", A),
    (FAILED, "reserved", "long ago"): (FAILED, "worker", A),
    (FAILED, "scheduled", "long ago"): (FAILED, "worker", A),
    (CANCELLED, "active", "long ago"): (CANCELLED, "worker", A),
    (CANCELLED, "reserved", "long ago"): (CANCELLED, "worker", A),
    (CANCELLED, "scheduled", "long ago"): (CANCELLED, "worker", A),
}


@pytest.mark.parametrize(("status", "live", "known"), CELLS, ids=str)
def test_each_cell_of_the_table_has_one_row(status: JobStatus, live: str, known: str) -> None:
    entry = entry_of(status, since=0.5 if known == "now" else 60)
    (view,) = merge([entry], LIVE[live], now=NOW)
    expected = CELLS[status, live, known]
    assert (view.status, view.live_source, view.worker_id) == expected
    assert view.job_id == JOB
    assert view.is_active == (expected[0] in (QUEUED, RUNNING))


def test_the_table_has_every_cell() -> None:
    assert {(status, live) for status, live, known in CELLS if known == "now"} == {
        (status, live) for status in JobStatus for live in LIVE
    }


@pytest.mark.parametrize(
    ("state", "status"),
    [(LiveState.ACTIVE, RUNNING), (LiveState.RESERVED, QUEUED), (LiveState.SCHEDULED, QUEUED)],
)
def test_a_live_job_that_the_ledger_does_not_know_is_shown_as_foreign(state: LiveState, status: JobStatus) -> None:
    (view,) = merge([], snapshot(answer(), facts=(fact(state),)), now=NOW)
    assert (view.job_id, view.status, view.live_source, view.worker_id) == (JOB, status, LiveSource.FOREIGN, A)
    assert (view.task, view.queue, view.priority_name) == ("pictures.enhance", "pictures", "high")
    assert not view.can_cancel
    assert view.cancel_refusal is not None
    assert "does not know" in view.cancel_refusal
    assert not view.can_retry
    assert view.is_active


def test_a_foreign_job_of_a_duplicated_node_name_is_one_row() -> None:
    live = snapshot(answer(workers=2), facts=(fact(LiveState.ACTIVE), fact(LiveState.RESERVED)))
    (view,) = merge([], live, now=NOW)
    assert view.status is RUNNING


def test_a_foreign_job_of_a_silent_node_is_shown_with_its_age_until_its_last_word_is_too_old() -> None:
    def foreign(age: float) -> list[JobViewModel]:
        return foreign_jobs(snapshot(answer(age=age), facts=(fact(LiveState.ACTIVE, age=age),)), [], now=NOW)

    (view,) = foreign(LAST_WORD_LIFETIME - 1)
    assert view.live_age == LAST_WORD_LIFETIME - 1
    assert view.live_note == "celery@a has not answered for 14 s"
    assert foreign(LAST_WORD_LIFETIME + 1) == []


# -- a job that a node runs


def test_a_run_that_the_ledger_has_not_heard_of_brings_its_start() -> None:
    view = merge_job(entry_of(QUEUED), LIVE["active"], now=NOW)
    assert view.started_at == ago(5)
    assert view.live_age == 0
    assert view.can_cancel
    assert not view.can_retry


def test_the_node_that_runs_a_job_now_wins_over_the_one_that_the_ledger_remembers() -> None:
    live = snapshot(answer(), answer(B), facts=(fact(LiveState.ACTIVE, B),))
    assert merge_job(entry_of(RUNNING), live, now=NOW).worker_id == B


def test_a_job_that_runs_on_two_nodes_is_one_row_that_names_both() -> None:
    live = snapshot(answer(), answer(B), facts=(fact(LiveState.ACTIVE, B), fact(LiveState.ACTIVE, A)))
    (view,) = merge([entry_of(RUNNING)], live, now=NOW)
    assert view.worker_id == A
    assert view.live_note == "it runs on celery@a and celery@b: a second delivery"


def test_a_job_that_moved_on_between_two_questions_counts_as_running() -> None:
    live = snapshot(answer(), facts=(fact(LiveState.RESERVED), fact(LiveState.ACTIVE)))
    assert merge_job(entry_of(QUEUED), live, now=NOW).status is RUNNING


def test_the_last_word_of_a_node_that_fell_silent_is_stale() -> None:
    live = snapshot(answer(age=5), facts=(fact(LiveState.ACTIVE, age=5),))
    view = merge_job(entry_of(QUEUED), live, now=NOW)
    assert (view.status, view.live_source, view.live_age) == (RUNNING, LiveSource.STALE, 5)


def test_the_last_word_of_a_node_counts_no_more_when_it_is_too_old() -> None:
    age = LAST_WORD_LIFETIME + 1
    live = snapshot(answer(age=age), facts=(fact(LiveState.ACTIVE, age=age),))
    view = merge_job(entry_of(QUEUED), live, now=NOW)
    assert (view.status, view.live_source) == (QUEUED, LiveSource.HISTORY)


def test_an_answer_from_before_a_retry_does_not_make_the_waiting_attempt_run() -> None:
    entry = retrying_since(ago(1), due=ago(-20))
    view = merge_job(entry, LIVE["active"], now=NOW)
    assert (view.status, view.live_source, view.attempt) == (QUEUED, LiveSource.HISTORY, 2)
    assert view.next_attempt_at == ago(-20)


def test_an_attempt_that_was_due_before_its_run_started_runs() -> None:
    view = merge_job(retrying_since(ago(30), due=ago(20)), LIVE["active"], now=NOW)
    assert (view.status, view.live_source, view.next_attempt_at) == (RUNNING, LiveSource.WORKER, None)


def retrying_since(moment: datetime, due: datetime) -> JobHistoryEntry:
    retrying = JobEvent(kind=EventKind.RETRYING, job_id=JOB, at=moment, text="no luck", next_attempt_at=due)
    return fold(entry_of(RUNNING, since=60), retrying)


# -- a job that waits at a node


def test_a_scheduled_job_shows_when_it_is_due() -> None:
    view = merge_job(entry_of(QUEUED), LIVE["scheduled"], now=NOW)
    assert view.next_attempt_at == ago(-30)
    assert view.live_note == "celery@a has it; it waits for its time"


def test_a_reserved_job_says_that_it_waits_for_a_slot() -> None:
    assert merge_job(entry_of(QUEUED), LIVE["reserved"], now=NOW).live_note == "celery@a has it; it waits for a slot"


def test_a_running_job_that_a_node_later_holds_waiting_says_so() -> None:
    view = merge_job(entry_of(RUNNING, since=60), LIVE["reserved"], now=NOW)
    assert view.live_note is not None
    assert view.live_note.startswith("celery@a holds a copy of it, which waits (reserved)")


# -- a job that nobody reports


def test_a_queued_job_that_a_silent_node_took_is_stale() -> None:
    assert merge_job(taken_by_a(), LIVE["node silent"], now=NOW).live_source is LiveSource.STALE


def test_a_queued_job_that_a_node_took_and_does_not_report_stays_queued() -> None:
    view = merge_job(taken_by_a(), LIVE["absent"], now=NOW)
    assert (view.status, view.live_source) == (QUEUED, LiveSource.HISTORY)


def taken_by_a() -> JobHistoryEntry:
    taken = JobEvent(kind=EventKind.HANDED_OVER, job_id=JOB, at=ago(1), worker_id=A, boot_id="boot-1", run_id="run-1")
    return fold(entry_of(QUEUED), taken)


def test_silence_says_since_when() -> None:
    view = merge_job(entry_of(RUNNING), LIVE["node silent"], now=NOW)
    assert (view.live_age, view.live_note) == (10, "celery@a has not answered for 10 s")


def test_a_node_that_never_answered_is_silent() -> None:
    view = merge_job(entry_of(RUNNING), snapshot(answer(age=None)), now=NOW)
    assert (view.live_source, view.live_age, view.live_note) == ("stale", None, "celery@a has not answered yet")


def test_a_broker_that_does_not_answer_is_named_as_the_reason() -> None:
    live = msgspec.structs.replace(snapshot(answer(age=10)), unknown_since=NOW - 8)
    view = merge_job(entry_of(RUNNING), live, now=NOW)
    assert view.live_note == "the broker has not answered for 8 s, so celery@a cannot be asked"


def test_a_node_that_is_registered_no_more_is_named() -> None:
    view = merge_job(entry_of(RUNNING), LIVE["no node"], now=NOW)
    assert view.live_note == "celery@a is not registered and does not answer"


def test_a_job_of_an_unknown_node_has_nobody_to_ask() -> None:
    started = JobEvent(kind=EventKind.STARTED, job_id=JOB, at=ago(1))
    view = merge_job(fold(entry_of(QUEUED), started), LIVE["absent"], now=NOW)
    assert (view.status, view.live_source) == (RUNNING, LiveSource.HISTORY)


def test_an_absence_is_noted_only_when_the_answer_is_later_than_the_start() -> None:
    assert merge_job(entry_of(RUNNING, since=0.5), LIVE["absent"], now=NOW).live_note is None
    later = merge_job(entry_of(RUNNING, since=60), LIVE["absent"], now=NOW)
    assert later.live_note == "celery@a answers that it does not run it: its end is on its way, or recovery decides"


def test_an_absence_after_a_restart_of_the_node_is_named_as_that() -> None:
    view = merge_job(entry_of(RUNNING), snapshot(answer(boot_id="boot-2")), now=NOW)
    assert view.live_note == "celery@a was started again since; recovery decides"


def test_an_absence_in_the_answers_of_a_duplicated_name_says_nothing_about_the_job() -> None:
    view = merge_job(entry_of(RUNNING, since=60), snapshot(answer(workers=2)), now=NOW)
    assert (view.status, view.live_source) == (RUNNING, LiveSource.HISTORY)
    assert view.live_note == "2 workers answer as celery@a; give each its own name (-n)"


def test_another_nodes_silence_does_not_matter_to_a_job_that_its_node_reports() -> None:
    live = snapshot(answer(), answer(B, age=30), facts=(fact(LiveState.ACTIVE),))
    assert merge_job(entry_of(RUNNING), live, now=NOW).live_source is LiveSource.WORKER


# -- a job that has ended


def test_a_second_run_of_an_ended_job_is_visible_and_changes_nothing() -> None:
    view = merge_job(entry_of(COMPLETED, since=60), LIVE["active"], now=NOW)
    assert view.live_note == "celery@a runs it again: a second delivery"
    assert (view.completed_at, view.can_retry, view.can_cancel) == (ago(60), True, False)


def test_a_job_that_still_runs_after_a_verdict_says_that_the_verdict_will_be_corrected() -> None:
    end = JobEnd(status=FAILED, at=ago(60), evidence=Evidence.VERDICT, run_id="run-1")
    ended = fold(entry_of(RUNNING, since=90), JobEvent(kind=EventKind.ENDED, job_id=JOB, at=ago(60), end=end))
    view = merge_job(ended, LIVE["active"], now=NOW)
    assert (view.status, view.live_note) == (FAILED, "celery@a still runs it: its own end will correct this one")


def test_an_old_word_of_a_silent_node_is_no_news_about_an_ended_job() -> None:
    live = snapshot(answer(age=10), facts=(fact(LiveState.ACTIVE, age=10),))
    view = merge_job(entry_of(COMPLETED, since=60), live, now=NOW)
    assert (view.live_source, view.live_note) == (LiveSource.HISTORY, None)


# -- a job that is being cancelled


@pytest.mark.parametrize(
    ("live", "state"),
    [
        ("active", "cancelling: waiting for node celery@a"),
        ("node silent", "cancelling: node celery@a does not answer"),
        ("no node", "cancelling: node celery@a does not answer"),
    ],
)
def test_a_cancel_says_whom_it_waits_for(live: str, state: str) -> None:
    asked = JobEvent(kind=EventKind.CANCEL_REQUESTED, job_id=JOB, at=ago(0))
    assert merge_job(fold(entry_of(RUNNING), asked), LIVE[live], now=NOW).cancel_state == state


def test_silence_does_not_hide_that_a_pool_cannot_be_interrupted() -> None:
    asked = fold(entry_of(RUNNING), JobEvent(kind=EventKind.CANCEL_REQUESTED, job_id=JOB, at=ago(0)))
    told = JobEvent(kind=EventKind.CANCEL_DELIVERED, job_id=JOB, at=ago(0), text="this pool cannot be interrupted")
    view = merge_job(fold(asked, told), LIVE["node silent"], now=NOW)
    assert view.cancel_state == "cancelling: this pool cannot be interrupted"


def test_no_cancel_state_without_a_cancel() -> None:
    assert merge_job(entry_of(RUNNING), LIVE["node silent"], now=NOW).cancel_state is None


# -- filter, limit, order


def test_the_filter_comes_after_the_merge() -> None:
    queued = entry_of(QUEUED)
    assert merge([queued], LIVE["active"], statuses=[QUEUED], now=NOW) == []
    (view,) = merge([queued], LIVE["active"], statuses=[RUNNING], now=NOW)
    assert view.job_id == JOB


def test_the_filter_applies_to_foreign_jobs_too() -> None:
    assert [view.job_id for view in merge([], LIVE["active"], statuses=[RUNNING], now=NOW)] == [JOB]
    assert merge([], LIVE["active"], statuses=[QUEUED, COMPLETED], now=NOW) == []


def test_several_statuses_may_be_asked_for() -> None:
    entries = [entry_of(status, job_id=status.value) for status in JobStatus]
    views = merge(entries, None, statuses={QUEUED, FAILED}, now=NOW)
    assert {view.status for view in views} == {QUEUED, FAILED}


@pytest.mark.parametrize(("limit", "count"), [(None, 3), (5, 3), (2, 2), (0, 0), (-1, 0)])
def test_the_limit_counts_what_is_left_after_the_filter(limit: int | None, count: int) -> None:
    entries = [entry_of(RUNNING, job_id=f"running-{n}") for n in range(3)] + [entry_of(QUEUED, job_id="queued")]
    assert len(merge(entries, None, statuses=[RUNNING], limit=limit, now=NOW)) == count


def test_foreign_jobs_come_first_then_the_newest() -> None:
    entries = [entry_of(QUEUED, job_id="old", since=90), entry_of(QUEUED, job_id="new", since=1)]
    live = snapshot(answer(), facts=(fact(LiveState.ACTIVE, job_id="foreign"),))
    assert [view.job_id for view in merge(entries, live, now=NOW)] == ["foreign", "new", "old"]


def test_jobs_of_one_moment_are_ordered_by_id_newest_first() -> None:
    entries = [entry_of(QUEUED, job_id=job_id) for job_id in ("b", "c", "a")]
    assert [view.job_id for view in merge(entries, None, now=NOW)] == ["c", "b", "a"]


def test_an_entry_that_comes_twice_is_one_job() -> None:
    assert len(merge([entry_of(RUNNING), entry_of(RUNNING)], LIVE["active"], now=NOW)) == 1


def test_disabled_actions_are_disabled_in_every_row() -> None:
    entries = [entry_of(status, job_id=status.value) for status in JobStatus]
    views = merge(entries, LIVE["active"], actions_enabled=False, now=NOW)
    assert len(views) == len(entries) + 1
    assert not any(view.can_cancel or view.can_retry for view in views)
    assert all(view.cancel_refusal and view.retry_refusal for view in views)


def test_a_row_can_be_written_as_json_and_read_back() -> None:
    for live in LIVE.values():
        for view in merge([entry_of(RUNNING), entry_of(FAILED, job_id="failed")], live, now=NOW):
            assert msgspec.json.decode(msgspec.json.encode(view), type=JobViewModel) == view
