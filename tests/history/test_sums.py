"""The sums that every ledger keeps beside its jobs: counts, statistics, failure groups."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from jobledger.history import sql_failure_groups, sql_statistics
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.job import Evidence, FailureKind, JobEnd, JobFacts, JobStatus
from jobledger.history.job_history_store import JobHistoryStore
from jobledger.history.schema import failure_groups, job_statistics
from jobledger.history.sql_store import SqlJobHistoryStore
from jobledger.history.statistics import Activity, Slice, Statistics, StatisticsRange, Step, range_between
from jobledger.history.sums import Measure, Tally, bucket_of, middle_of
from sqlalchemy import func, insert, select

from .recount import differences

TODAY = now().replace(hour=0, minute=0, second=0, microsecond=0)
#: Far enough from now to be over, and near enough to be told in minutes.
HOUR = now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
#: A day whose hours are kept, not its minutes.
DAY = TODAY - timedelta(days=10)


def happened(
    job_id: str,
    at: datetime = HOUR,
    *,
    task: str = "shop.ship",
    queue: str = "main",
    waited: float = 1.0,
    ran: float = 2.0,
    status: JobStatus = JobStatus.COMPLETED,
    **end: Any,
) -> list[JobEvent]:
    """A job that was submitted at ``at``, started after ``waited`` and ended after ``ran`` seconds."""
    started, ended = at + timedelta(seconds=waited), at + timedelta(seconds=waited + ran)
    how = JobEnd(status=status, at=ended, run_id="run", runtime=ran, **end)
    return [
        JobEvent(kind=EventKind.SUBMITTED, job_id=job_id, at=at, facts=JobFacts(task=task, queue=queue)),
        JobEvent(kind=EventKind.STARTED, job_id=job_id, at=started, run_id="run"),
        JobEvent(kind=EventKind.ENDED, job_id=job_id, at=ended, run_id="run", end=how),
    ]


def failed(
    job_id: str, at: datetime = HOUR, message: str = "ValueError: order 1 is gone", **end: Any
) -> list[JobEvent]:
    fields = {"error_type": "ValueError", "failure_kind": FailureKind.EXCEPTION, "error_message": message} | end
    return happened(job_id, at, status=JobStatus.FAILED, **fields)


def numbers(activity: Activity | Step) -> tuple[int, ...]:
    return activity.submitted, activity.completed, activity.failed, activity.cancelled


def all_of(store: JobHistoryStore, **chosen: Any) -> Statistics:
    return store.statistics(HOUR, HOUR + timedelta(hours=1), **chosen)


# Counts


def test_an_empty_ledger_counts_nothing(store: JobHistoryStore) -> None:
    counts = store.counts()
    assert counts.statuses == dict.fromkeys(JobStatus, 0)
    assert counts.tallies == dict.fromkeys(Tally, 0)


def test_jobs_are_counted_by_their_status_as_it_is_now(store: JobHistoryStore) -> None:
    store.append(happened("a"))
    store.append(failed("b") + happened("c")[:2] + happened("d")[:1])
    store.append(happened("d")[1:])

    statuses = store.counts().statuses

    assert statuses == {"COMPLETED": 2, "FAILED": 1, "RUNNING": 1, "QUEUED": 0, "CANCELLED": 0}
    assert differences(store) == []


def test_what_should_not_happen_is_tallied(store: JobHistoryStore) -> None:
    store.append(happened("a"))
    store.append([happened("a", waited=5)[2], *(event for event in failed("b")[:2])])
    store.append([JobEvent(kind=EventKind.STARTED, job_id="b", at=HOUR, run_id="another")])

    tallies = store.counts().tallies

    assert (tallies[Tally.LATE_ENDS], tallies[Tally.DUPLICATE_RUNS]) == (1, 1)


# Statistics


def test_each_thing_counts_in_the_minute_when_it_happened(store: JobHistoryStore) -> None:
    store.append(happened("a", HOUR, waited=70, ran=120) + happened("b", HOUR + timedelta(minutes=1), waited=0, ran=1))

    told = all_of(store)

    assert (told.since, told.until, told.step) == (HOUR, HOUR + timedelta(hours=1), 60)
    assert [step.at for step in told.steps] == [HOUR + timedelta(minutes=minute) for minute in range(60)]
    assert [numbers(step)[:2] for step in told.steps[:5]] == [(1, 0), (1, 1), (0, 0), (0, 1), (0, 0)]
    assert told.total.waited.count == 2
    assert numbers(told.total) == (2, 2, 0, 0)


def test_statistics_are_told_by_task_and_by_queue_those_with_most_jobs_first(store: JobHistoryStore) -> None:
    store.append([event for number in range(3) for event in happened(f"a{number}", task="a", queue="slow")])
    store.append(happened("b", task="b", queue="fast") + failed("c"))
    store.append(happened("d", task="d", queue="fast", status=JobStatus.CANCELLED))

    told = all_of(store)

    assert [(group.name, numbers(group)) for group in told.by_task] == [
        ("a", (3, 3, 0, 0)),
        ("b", (1, 1, 0, 0)),
        ("d", (1, 0, 0, 1)),
        ("shop.ship", (1, 0, 1, 0)),
    ]
    assert [(group.name, group.submitted) for group in told.by_queue] == [("slow", 3), ("fast", 2), ("main", 1)]
    assert numbers(all_of(store, task="a").total) == (3, 3, 0, 0)
    assert [group.name for group in all_of(store, queue="fast").by_task] == ["b", "d"]
    assert numbers(all_of(store, task="a", queue="fast").total) == (0, 0, 0, 0)
    assert sum(step.submitted for step in all_of(store, queue="fast").steps) == 2


def test_waiting_and_running_times_are_right_within_a_tenth(store: JobHistoryStore) -> None:
    for number in range(1, 101):
        store.append(happened(str(number), waited=number / 10, ran=number * 3.0))

    total = all_of(store).total

    assert (total.waited.count, total.ran.count) == (100, 100)
    assert [total.waited.p50, total.waited.p95, total.waited.p99] == pytest.approx([5, 9.5, 9.9], rel=0.1)
    assert [total.ran.p50, total.ran.p95, total.ran.p99] == pytest.approx([150, 285, 297], rel=0.1)
    assert total.failed_share == 0


def test_without_any_job_there_are_no_percentiles(store: JobHistoryStore) -> None:
    total = all_of(store).total
    assert (total.waited.count, total.waited.p50, total.failed_share) == (0, None, None)


def test_a_correction_moves_a_job_from_one_count_to_the_other(store: JobHistoryStore) -> None:
    lost = happened("a", status=JobStatus.FAILED, evidence=Evidence.VERDICT, failure_kind=FailureKind.WORKER_LOST)
    store.append(lost)
    store.append(happened("a", ran=600)[2:])

    told = all_of(store)

    assert numbers(told.total) == (1, 1, 0, 0)
    assert told.total.ran.count == 1
    assert told.total.ran.p50 == pytest.approx(600, rel=0.1)
    assert store.failure_groups().groups == ()
    assert differences(store) == []


@pytest.mark.parametrize(
    ("length", "step"), [(timedelta(hours=3), 60), (timedelta(hours=5), 3_600), (timedelta(days=9), 86_400)]
)
def test_the_steps_of_a_range_are_as_long_as_it_needs(store: JobHistoryStore, length: timedelta, step: int) -> None:
    end = now()
    start = end - length
    store.append(happened("a", start + length / 2))
    store.append(happened("before", start - timedelta(days=2)) + happened("early", start + length / 3))

    told = store.statistics(start, end)

    assert told.step == step
    assert told.since <= start < end <= told.until
    assert numbers(told.total) == (2, 2, 0, 0)
    assert sum(each.completed for each in told.steps) == 2
    assert [told.steps[1].at - told.steps[0].at] == [timedelta(seconds=step)]


def test_a_range_of_old_days_is_told_in_hours(store: JobHistoryStore) -> None:
    store.append(happened("a", DAY + timedelta(hours=5, minutes=59)))

    told = store.statistics(DAY + timedelta(hours=5), DAY + timedelta(hours=6))

    assert (told.step, len(told.steps), told.steps[0].submitted) == (3_600, 1, 1)


def test_a_range_that_ends_before_it_begins_is_refused(store: JobHistoryStore) -> None:
    with pytest.raises(ValueError, match="must end after it begins"):
        store.statistics(HOUR, HOUR)


@pytest.mark.parametrize("name", ["", "'; DROP TABLE jobs; --", "a\x00b", "\ud800", "x" * 100_000])
def test_statistics_of_a_name_that_nobody_has_are_empty(store: JobHistoryStore, name: str) -> None:
    store.append(happened("a"))
    assert numbers(all_of(store, task=name).total) == numbers(all_of(store, queue=name).total) == (0, 0, 0, 0)


def test_a_range_is_covered_by_as_few_counts_as_possible() -> None:
    day, hour = 1_440, 60
    wanted = StatisticsRange(day - 2 * hour - 3, 3 * day + hour + 5, 1)
    assert list(wanted.slices()) == [
        Slice(1, day - 2 * hour - 3, day - 2 * hour),
        Slice(60, day - 2 * hour, day),
        Slice(1_440, day, 3 * day),
        Slice(60, 3 * day, 3 * day + hour),
        Slice(1, 3 * day + hour, 3 * day + hour + 5),
    ]
    assert list(StatisticsRange(5, 9, 1).slices()) == [Slice(1, 5, 9)]
    assert list(StatisticsRange(0, 2 * day, day).slices()) == [Slice(1_440, 0, 2 * day)]


@pytest.mark.parametrize("minutes", [1, 59, 180, 181, 5_000, 11_520, 11_521, 500_000, 5_000_000])
def test_a_range_has_no_more_steps_than_people_can_see_and_is_covered_without_a_hole(minutes: int) -> None:
    wanted = range_between(now() - timedelta(minutes=minutes), now())
    slices = list(wanted.slices())

    assert (wanted.end - wanted.start) // wanted.step <= 402
    assert [part.start for part in slices] == [wanted.start, *(part.end for part in slices[:-1])]
    assert slices[-1].end == wanted.end


@pytest.mark.parametrize("seconds", [0, 0.0004, 0.001, 0.0123, 1, 59.9, 3_600, 86_400 * 30])
def test_a_bucket_stands_for_its_durations_within_a_tenth(seconds: float) -> None:
    assert middle_of(bucket_of(seconds)) == pytest.approx(seconds, rel=0.092, abs=0.001)


# Failure groups


def test_failures_of_one_kind_are_one_group_with_its_jobs(store: JobHistoryStore) -> None:
    store.append(failed("a", HOUR, "ValueError: order 1 is gone") + failed("b", HOUR + timedelta(minutes=9)))
    store.append(failed("c", HOUR + timedelta(minutes=3), "ValueError: order 77 is gone"))
    store.append(failed("d", HOUR, "ValueError: no such customer"))

    first, second = store.failure_groups().groups

    assert (first.error_type, first.pattern, first.frame) == ("ValueError", "order # is gone", "shop.ship")
    assert (first.count, first.example_job_id) == (3, "b")
    assert first.first_seen_at == HOUR + timedelta(seconds=3)
    assert first.last_seen_at == HOUR + timedelta(minutes=9, seconds=3)
    assert (second.pattern, second.count, second.example_job_id) == ("no such customer", 1, "d")
    assert differences(store) == []


def test_the_example_of_a_group_is_a_job_that_is_still_in_it(store: JobHistoryStore) -> None:
    lost = {"evidence": Evidence.VERDICT, "failure_kind": FailureKind.WORKER_LOST, "error_type": "WorkerLostError"}
    store.append(failed("a", HOUR, "died", **lost) + failed("b", HOUR + timedelta(minutes=9), "died", **lost))
    store.append(happened("b", HOUR + timedelta(minutes=9))[2:])

    [group] = store.failure_groups().groups

    assert (group.count, group.example_job_id) == (1, "a")


def test_groups_are_paged_each_once_the_newest_first(store: JobHistoryStore) -> None:
    for number in range(7):
        words = ["one", "two", "three", "four", "five", "six", "seven"]
        store.append(failed(f"job-{number}", HOUR + timedelta(seconds=number // 2), f"ValueError: {words[number]}"))
    whole = store.failure_groups().groups

    pages, cursor = [], None
    while True:
        page = store.failure_groups(cursor, 2)
        pages.append(page.groups)
        cursor = page.next_cursor
        if cursor is None:
            break

    assert [len(page) for page in pages] == [2, 2, 2, 1]
    assert [group for page in pages for group in page] == list(whole)
    assert [group.last_seen_at for group in whole] == sorted((g.last_seen_at for g in whole), reverse=True)
    assert store.failure_groups(limit=0).groups == ()
    with pytest.raises(ValueError, match="not a cursor"):
        store.failure_groups("nonsense")


def test_no_secret_of_a_plain_status_change_gets_into_a_group(store: JobHistoryStore) -> None:
    store.record_status_change(
        "a", JobStatus.FAILED, HOUR, "no answer of postgresql://shop:hunter2@db, api_key=hunter22"
    )
    [group] = store.failure_groups().groups
    assert "hunter2" not in group.pattern
    assert "hunter2" not in str(store.get_job("a"))


# In SQL alone


@pytest.fixture
def sql_store(ledger_url: str, open_store: Callable[[str], SqlJobHistoryStore]) -> SqlJobHistoryStore:
    return open_store(ledger_url)


def test_the_shards_of_a_sum_are_one_to_its_reader(sql_store: SqlJobHistoryStore) -> None:
    sql_store.append(failed("a"))
    with sql_store._database.writing() as connection:
        for table in (job_statistics, failure_groups):
            for row in connection.execute(select(table)).mappings().all():
                connection.execute(insert(table), dict(row) | {"shard": row["shard"] + 1, "count": 4})
        newer = failure_groups.update().where(failure_groups.c["count"] == 4)
        connection.execute(newer.values(last_seen_at=HOUR + timedelta(hours=1)))

    [group] = sql_store.failure_groups().groups

    assert (group.count, group.last_seen_at, group.first_seen_at) == (
        5,
        HOUR + timedelta(hours=1),
        HOUR + timedelta(seconds=3),
    )
    assert numbers(all_of(sql_store).total) == (5, 0, 5, 0)
    assert sql_store.failure_groups(limit=1).next_cursor is None


def test_old_statistics_are_pruned_the_finest_first(sql_store: SqlJobHistoryStore) -> None:
    ages = [timedelta(hours=1), timedelta(days=3), timedelta(days=40), timedelta(days=200)]
    for number, age in enumerate(ages):
        sql_store.append(happened(str(number), now() - age))

    calls = _prune(sql_store, now() - timedelta(days=90))

    assert calls > 1
    assert _jobs_in_statistics(sql_store) == {1: 1, 60: 2, 1_440: 3}
    assert sql_store.statistics(now() - timedelta(days=100), now()).total.submitted == 3


def test_without_a_limit_days_stay_for_ever(sql_store: SqlJobHistoryStore) -> None:
    sql_store.append(happened("a", now() - timedelta(days=900)))
    _prune(sql_store, None)
    assert _jobs_in_statistics(sql_store) == {1_440: 1}


def test_groups_without_a_job_are_pruned(sql_store: SqlJobHistoryStore) -> None:
    sql_store.append(failed("a") + failed("b", message="ValueError: still here"))
    sql_store.append(happened("a")[2:])
    with sql_store._database.writing() as connection:
        assert sql_failure_groups.prune_failure_groups(connection) == 1
        assert sql_failure_groups.prune_failure_groups(connection) == 0
    assert [group.pattern for group in sql_store.failure_groups().groups] == ["still here"]
    assert differences(sql_store) == []


def test_groups_are_pruned_a_part_at_a_time(sql_store: SqlJobHistoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_failure_groups, "_PRUNED_AT_ONCE", 2)
    names = ("apple", "pear", "plum")
    sql_store.append([event for name in names for event in failed(name, message=f"ValueError: no {name} left")])
    sql_store.append([event for name in names for event in happened(name)[2:]])
    with sql_store._database.writing() as connection:
        assert [sql_failure_groups.prune_failure_groups(connection) for _ in range(3)] == [2, 1, 0]
    assert differences(sql_store) == []


def test_groups_are_pruned_while_others_write(sql_store: SqlJobHistoryStore) -> None:
    def fail_and_recover(name: str) -> None:
        for number in range(20):
            sql_store.append(failed(f"{name}-{number}"))
            sql_store.append(happened(f"{name}-{number}")[2:])
        sql_store.append(failed(f"{name}-last"))

    def prune() -> None:
        for _ in range(20):
            with sql_store._database.writing() as connection:
                sql_failure_groups.prune_failure_groups(connection)

    with ThreadPoolExecutor(4) as pool:
        works = [pool.submit(fail_and_recover, name) for name in "abc"] + [pool.submit(prune)]
        for work in works:
            work.result()

    assert [group.count for group in sql_store.failure_groups().groups] == [3]
    assert differences(sql_store) == []


def test_a_reader_is_answered_by_an_index_that_ends_in_its_order(sql_store: SqlJobHistoryStore) -> None:
    sql_store.append(failed("a"))
    statistics = sql_statistics._by_group(Slice(60, 0, 60), [])
    newest_job = sql_failure_groups._newest_job("0123456789abcdef")
    if "sqlite" in sql_store._database.engine.name:
        assert "PRIMARY KEY (span=? AND measure=? AND minute>? AND minute<?)" in _plan(sql_store, statistics)
        plan = _plan(sql_store, newest_job)
        assert "jobs_by_failure (failure_group>? AND failure_group<?)" in plan
        assert "TEMP B-TREE" not in plan
    else:
        assert "job_statistics_pkey" in _plan(sql_store, statistics)
        plan = _plan(sql_store, newest_job)
        assert "jobs_by_failure" in plan
        assert "Sort" not in plan


def _plan(store: SqlJobHistoryStore, query: Any) -> str:
    with store._database.reading() as connection:
        text = str(query.compile(connection.engine, compile_kwargs={"literal_binds": True}))
        if connection.dialect.name == "sqlite":
            return str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all())
        # What it would choose in a table that is not almost empty.
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        return str(connection.exec_driver_sql(f"EXPLAIN {text}").all())


def _prune(store: SqlJobHistoryStore, before: datetime | None) -> int:
    calls = 0
    while True:
        calls += 1
        with store._database.writing() as connection:
            if not sql_statistics.prune_statistics(connection, before):
                return calls


def _jobs_in_statistics(store: SqlJobHistoryStore) -> dict[int, int]:
    table = job_statistics.c
    query = select(table.span, func.sum(table["count"])).where(table.measure == Measure.SUBMITTED)
    with store._database.reading() as connection:
        return {span: int(count) for span, count in connection.execute(query.group_by(table.span))}
