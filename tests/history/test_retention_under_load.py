"""Retention while four writers record: nobody waits for ever, nothing of a living job is lost, nothing is left over."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from jobledger.history.event import EventKind, now
from jobledger.history.job import TERMINAL_STATUSES, JobStatus
from jobledger.history.job_history_store import JobFilter, LeaseHold
from jobledger.history.retention import Removal, RetentionPolicy
from jobledger.history.schema import (
    METADATA,
    failure_groups,
    job_events,
    job_labels,
    job_log,
    job_snapshots,
    jobs,
    pruned_jobs,
)
from jobledger.history.sql_store import SqlJobHistoryStore
from sqlalchemy import Connection, create_engine, func, select

WRITERS, BATCHES, JOBS = 4, 30, 20
A_MONTH = RetentionPolicy(ages=dict.fromkeys(TERMINAL_STATUSES, timedelta(days=30)))

#: Each batch is submitted, started and ended long ago; a log line of another writer's older batch may come too late.
WRITER = """
import sys
from datetime import UTC, datetime, timedelta
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.job import JobEnd, JobFacts, JobStatus, Snapshot
from jobledger.history.sql_store import SqlJobHistoryStore

url, writer, writers, batches, jobs = sys.argv[1], *map(int, sys.argv[2:])
long_ago = datetime.now(UTC) - timedelta(days=90)
snapshot = Snapshot(sealed="gAAAAA", digest="d", size=1, key_fingerprint="k")
statuses = [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED]

def event(kind, job_id, **more):
    return JobEvent(kind=kind, job_id=job_id, at=long_ago, **more)

def submitted(job_id):
    facts = JobFacts(task="tasks.render", queue="gpu", tags=("night", job_id[-1]), payload_summary="a lighthouse")
    return event(EventKind.SUBMITTED, job_id, facts=facts, snapshot=snapshot)

def ended(job_id, number):
    status = statuses[number % 3]
    return event(EventKind.ENDED, job_id, end=JobEnd(status=status, at=long_ago, error_type="E", error_message="boom"))

print("ready", flush=True)
sys.stdin.readline()
store = SqlJobHistoryStore.open(url, busy_timeout=60)
for batch in range(batches):
    ids = [f"{writer}-{batch}-{number}" for number in range(jobs)]
    living = f"living-{writer}-{batch}"
    store.append([submitted(living), *map(submitted, ids)])
    store.append([event(EventKind.STARTED, job_id, run_id="r") for job_id in [*reversed(ids), living]])
    store.append([event(EventKind.LOG, job_id, text="a line") for job_id in [*ids, living]])
    store.append([ended(job_id, number) for number, job_id in enumerate(ids)])
    if batch >= 2:
        others = [f"{(writer + 1) % writers}-{batch - 2}-{number}" for number in range(jobs)]
        store.append([event(EventKind.LOG, job_id, text="late") for job_id in reversed(others)])
store.close()
"""


@pytest.mark.timeout(600)
def test_four_writers_record_while_old_jobs_go(
    ledger_url: str, open_store: Callable[[str], SqlJobHistoryStore]
) -> None:
    store = open_store(ledger_url)
    writers = [_start_writer(ledger_url, number) for number in range(WRITERS)]

    removed_meanwhile = 0
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    while any(writer.poll() is None for writer in writers):
        removed_meanwhile += _remove_all(store)
    failures = [writer.communicate()[1] for writer in writers]

    assert failures == [""] * WRITERS
    assert removed_meanwhile > 0
    _remove_all(store)
    while store.index_for_search():
        pass
    _require_that_living_jobs_are_whole(store)
    with _connected(ledger_url) as connection:
        _require_that_nothing_is_left_over(connection)
        _require_that_the_sums_equal_a_recount(store, connection)
        assert connection.scalar(select(func.count()).select_from(pruned_jobs)) == WRITERS * BATCHES * JOBS


def _start_writer(url: str, number: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", WRITER, url, *map(str, (number, WRITERS, BATCHES, JOBS))]
    pipe = subprocess.PIPE
    writer = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


def _remove_all(store: SqlJobHistoryStore) -> int:
    fence = store.acquire_lease("retention", "test", 60)
    assert fence is not None
    removal = Removal(store, A_MONTH, now())
    while removal.step(LeaseHold(name="retention", fence=fence)):
        pass
    return removal.removed.total()


def _require_that_living_jobs_are_whole(store: SqlJobHistoryStore) -> None:
    page = store.page_jobs(JobFilter(), limit=500)
    expected = {f"living-{writer}-{batch}" for writer in range(WRITERS) for batch in range(BATCHES)}
    assert {entry.job_id for entry in page.entries} == expected
    assert {entry.status for entry in page.entries} == {JobStatus.RUNNING}
    for job_id in expected:
        kinds = [recorded.event.kind for recorded in store.get_job_events(job_id)]
        assert kinds == [EventKind.SUBMITTED, EventKind.STARTED]
        assert [line.event.text for line in store.get_job_log(job_id)] == ["a line"]
        assert store.get_snapshot(job_id) is not None


def _require_that_nothing_is_left_over(connection: Connection) -> None:
    about_jobs = [table for table in METADATA.sorted_tables if "job_id" in table.c]
    assert {job_events, job_log, job_snapshots, job_labels} <= set(about_jobs)
    known = select(jobs.c.job_id)
    for table in about_jobs:
        if table is not pruned_jobs:
            orphans = connection.scalars(select(table.c.job_id).where(table.c.job_id.not_in(known))).all()
            assert orphans == [], table.name


def _require_that_the_sums_equal_a_recount(store: SqlJobHistoryStore, connection: Connection) -> None:
    counted = select(jobs.c.status, func.count()).group_by(jobs.c.status)
    recount = {JobStatus(status): count for status, count in connection.execute(counted)}
    assert {status: count for status, count in store.counts().statuses.items() if count} == recount
    assert connection.scalar(select(func.sum(failure_groups.c["count"]))) in (0, None)


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()
