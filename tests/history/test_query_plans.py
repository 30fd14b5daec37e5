"""No read of a ledger goes through a table or sorts more than a page: every statement's plan at 100,000 jobs."""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Self
from uuid import uuid4

import msgspec
import psycopg
import pytest
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.failure_group import failure_group_of
from jobledger.history.job import JobStatus
from jobledger.history.job_cursor import JobCursor
from jobledger.history.job_history_store import JobFilter, JobHistoryStore
from jobledger.history.poison import PoisonPlace
from jobledger.history.schema import job_events, job_log, job_snapshots, jobs
from jobledger.history.sql_database import SqlDatabase
from jobledger.history.sql_lists import SCAN_STEPS
from jobledger.history.sql_search import MOST, STEPS
from jobledger.history.sql_store import SqlJobHistoryStore
from sqlalchemy import URL, BigInteger, Table, Text, event, insert, literal, make_url, select, text

from ..postgresql import administer

JOBS = 100_000
#: Rows that a statement may sort or look at one by one: what the largest step of a bounded page looks at.
BOUND = max(*SCAN_STEPS, *STEPS, MOST + 1)
#: Tables that do not grow with the number of jobs.
SMALL = {"nodes", "leases", "journals", "poison_lines", "totals", "cancel_intents", "failure_groups"}

Ask = Callable[[SqlJobHistoryStore], object]
Statement = tuple[str, Any]


def _filler() -> ModuleType:
    file = Path(__file__).parents[2] / "benchmarks" / "_ledger_filler.py"
    specification = importlib.util.spec_from_file_location("ledger_filler", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


FILLER = _filler()
MIDDLE = FILLER.DAWN + timedelta(minutes=5)
A_JOB = next(FILLER.entries_of(JOBS))
A_GROUP = next(group for group in map(failure_group_of, FILLER.entries_of(1_000)) if group)

FILTERS = {
    "everything": JobFilter(),
    "a status": JobFilter(statuses=(JobStatus.FAILED,)),
    "two statuses": JobFilter(statuses=(JobStatus.QUEUED, JobStatus.COMPLETED)),
    "a task": JobFilter(task="shop.ship"),
    "a queue and a status": JobFilter(queue="gpu", statuses=(JobStatus.FAILED,)),
    "a worker": JobFilter(worker_id="worker1@host"),
    "a tag": JobFilter(tags=("prod",)),
    "metadata": JobFilter(metadata=(("customer", "c3"),)),
    "a group": JobFilter(group_id="group-20"),
    "a family": JobFilter(root_id="root-20"),
    "a group of failures": JobFilter(failure_group=A_GROUP.fingerprint),
    "times": JobFilter(since=MIDDLE, until=MIDDLE + timedelta(minutes=1)),
    "a task, times and statuses": JobFilter(
        task="shop.bill", since=MIDDLE, statuses=(JobStatus.COMPLETED, JobStatus.CANCELLED)
    ),
    "what no index covers": JobFilter(task="shop.ship", queue="mail", worker_id="worker1@host"),
    "what nothing fits": JobFilter(task="shop.ship", queue="nowhere"),
    "two tags and a task": JobFilter(tags=("prod", "nightly"), task="mail.send"),
    "a rare word": JobFilter(text=FILLER.RARE_WORD),
    "an absent word": JobFilter(text=FILLER.ABSENT_WORD),
    "a common word": JobFilter(text=FILLER.COMMON_WORD),
    "a rare word and a status": JobFilter(text=FILLER.RARE_WORD, statuses=(JobStatus.FAILED,)),
    "common words and a group": JobFilter(text=FILLER.COMMON_WORD, group_id="group-20"),
    "a common word that fits nothing else": JobFilter(text=FILLER.COMMON_WORD, queue="nowhere"),
}


def _first_and_second_page(wanted: JobFilter) -> Ask:
    return lambda store: store.page_jobs(wanted, store.page_jobs(wanted).next_cursor)


#: How each public method that reads is asked; one that is missing here fails the first test.
READS: dict[str, list[Ask]] = {
    "list_jobs": [lambda store: store.list_jobs(), lambda store: store.list_jobs(JobStatus.FAILED, offset=50)],
    "page_jobs": [_first_and_second_page(wanted) for wanted in FILTERS.values()],
    "get_job": [lambda store: store.get_job(A_JOB.job_id)],
    "get_jobs": [lambda store: store.get_jobs([A_JOB.job_id, "nobody"])],
    "get_job_events": [lambda store: store.get_job_events(A_JOB.job_id)],
    "get_job_log": [lambda store: store.get_job_log(A_JOB.job_id)],
    "get_snapshot": [lambda store: store.get_snapshot(A_JOB.job_id)],
    "open_cancels": [lambda store: store.open_cancels()],
    "cancelled_ids_since": [lambda store: store.cancelled_ids_since(MIDDLE)],
    "has_cancel_intent": [lambda store: store.has_cancel_intent(A_JOB.job_id)],
    "journal_ends": [lambda store: store.journal_ends(["journal"])],
    "recording_gaps": [lambda store: store.recording_gaps()],
    "ended_boots": [lambda store: store.ended_boots(["boot"])],
    "list_nodes": [lambda store: store.list_nodes(), lambda store: store.list_nodes(include_ended=True)],
    "list_jobs_of_ended_nodes": [lambda store: store.list_jobs_of_ended_nodes()],
    "lease_holder": [lambda store: store.lease_holder("leader")],
    "lease_left": [lambda store: store.lease_left("leader")],
    "check": [lambda store: store.check()],
}
READS |= {
    "list_poison": [lambda store: store.list_poison()],
    "newest_poison": [lambda store: store.newest_poison()],
    "get_poison": [lambda store: store.get_poison(PoisonPlace("journal", 0))],
    "list_ended_jobs": [
        lambda store: store.list_ended_jobs({JobStatus.COMPLETED: MIDDLE, JobStatus.FAILED: None}),
        lambda store: store.list_ended_jobs({JobStatus.FAILED: None}, JobCursor(MIDDLE, A_JOB.job_id)),
    ],
    "jobs_with_active_retries": [lambda store: store.jobs_with_active_retries([A_JOB])],
    "get_events_of_jobs": [lambda store: store.get_events_of_jobs([A_JOB.job_id])],
    "counts": [lambda store: store.counts()],
    "statistics": [
        lambda store: store.statistics(MIDDLE, MIDDLE + timedelta(hours=1)),
        lambda store: store.statistics(MIDDLE - timedelta(days=20), MIDDLE, task="shop.ship", queue="gpu"),
    ],
    "failure_groups": [lambda store: store.failure_groups(store.failure_groups(limit=2).next_cursor)],
}
#: The methods that write: what they read they find by keys, and the stress tests tell.
WRITES = {
    "append",
    "record_job_submission",
    "record_status_change",
    "index_for_search",
    "request_cancel",
    "record_poison",
    "release_poison",
    "blame_poison",
    "record_node",
    "record_heartbeats",
    "end_node",
    "end_journal",
    "remove_jobs",
    "remove_rest",
    "acquire_lease",
    "release_lease",
    "check_writing",
    "close",
}


def test_every_method_of_a_store_is_known_here() -> None:
    methods = {name for name in vars(JobHistoryStore) if not name.startswith("_")}
    assert methods == READS.keys() | WRITES


@pytest.fixture(scope="module")
def large_sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a filled ledger; no test changes it."""
    url = f"sqlite:///{tmp_path_factory.mktemp('large') / 'ledger.db'}"
    _fill(url)
    return url


@pytest.fixture(scope="module")
def large_postgresql(postgresql_server: URL) -> Iterator[str]:
    """Return the address of a filled ledger; no test changes it."""
    name = f"jobledger_test_{uuid4().hex}"
    administer(postgresql_server, f'CREATE DATABASE "{name}"')
    url = postgresql_server.set(database=name).render_as_string(hide_password=False)
    _fill(url)
    yield url
    administer(postgresql_server, f'DROP DATABASE "{name}" WITH (FORCE)')


def _fill(url: str) -> None:
    """Put jobs into the ledger, and to some of them what hangs on jobs."""
    FILLER.fill(url, JOBS)
    database = SqlDatabase(url)
    nothing, no_text = literal(0, BigInteger), literal("", Text)
    an_event = literal(msgspec.json.encode(JobEvent(kind=EventKind.STARTED, job_id="job", at=MIDDLE)).decode(), Text)
    hanging: dict[Table, dict[str, Any]] = {
        job_events: {"kind": no_text, "at": nothing, "recorded_at": nothing, "event": an_event},
        job_log: {"recorded_at": nothing, "event": an_event},
        job_snapshots: {
            "rank": nothing,
            "sealed": no_text,
            "digest": no_text,
            "size": nothing,
            "key_fingerprint": no_text,
        },
    }
    with database.writing() as connection:
        for table, columns in hanging.items():
            rows = select(jobs.c.job_id, *columns.values()).limit(2 * BOUND)
            connection.execute(insert(table).from_select(["job_id", *columns], rows))
        connection.execute(text("ANALYZE" if not database.is_sqlite else "SELECT 1"))
    database.close()


@contextmanager
def watched(url: str) -> Iterator[tuple[SqlJobHistoryStore, list[Statement]]]:
    """Give a store, and the list that grows by every statement which its driver runs, values included."""
    database = SqlDatabase(url)
    statements: list[Statement] = []

    def watch(connection: Any, _record: object) -> None:
        if database.is_sqlite:
            connection.set_trace_callback(lambda query: statements.append((query, None)))
        else:
            connection.cursor_factory = _recording(statements)

    event.listen(database.engine, "connect", watch)
    store = SqlJobHistoryStore(database)
    yield store, statements
    store.close()


def _recording(statements: list[Statement]) -> type[psycopg.Cursor[Any]]:
    class RecordingCursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
            statements.append((query, params))
            return super().execute(query, params, **options)

    return RecordingCursor


def _asked(url: str, asks: Sequence[Ask]) -> list[Statement]:
    with watched(url) as (store, statements):
        for ask in asks:
            ask(store)
    # What FTS5 asks of its own tables, SQLite shows as remarks.
    reads = [
        (query, values)
        for query, values in statements
        if query.startswith(("SELECT", "WITH")) and "'main'." not in query
    ]
    assert reads
    return reads


@pytest.mark.parametrize("method", READS)
def test_sqlite_finds_what_a_method_asks_for_by_indexes(large_sqlite: str, method: str) -> None:
    connection = sqlite3.connect(large_sqlite.removeprefix("sqlite:///"))
    for query, _ in _asked(large_sqlite, READS[method]):
        plan = [str(step[3]) for step in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
        wrong = [step for step in plan if _is_costly_on_sqlite(step, query)]
        assert not wrong, f"{wrong} of {plan} for {query}"
    connection.close()


def _is_costly_on_sqlite(step: str, query: str) -> bool:
    if step.startswith("USE TEMP B-TREE"):
        are_heads_sorted = query.count(" LIMIT ") > 1
        return not (are_heads_sorted or any(f"FROM {table}" in query for table in SORTED_ON_SQLITE))
    if not step.startswith("SCAN"):
        return False
    name = step.split()[1]
    is_bounded = "USING" in step and " LIMIT " in query
    return not (is_bounded or name in SMALL or "VIRTUAL TABLE" in step or name.startswith("anon_"))


#: Tables of which a read sorts what one index range holds, a bounded number of rows.
SORTED_ON_SQLITE = {*SMALL, "job_events", "job_statistics"}


@pytest.mark.parametrize("method", READS)
def test_postgresql_finds_what_a_method_asks_for_by_indexes(large_postgresql: str, method: str) -> None:
    reads = _asked(large_postgresql, READS[method])
    with psycopg.connect(make_url(large_postgresql).set(drivername="postgresql").render_as_string(False)) as connection:
        for query, values in reads:
            [[[explained]]] = connection.execute(
                f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {query}", values
            ).fetchall()
            for node in _nodes(explained["Plan"]):
                assert not _is_costly_on_postgresql(node), f"{node} of {explained} for {query}"


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _is_costly_on_postgresql(node: dict[str, Any]) -> bool:
    loops = node["Actual Loops"]
    looked_at = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * loops
    is_scan = node["Node Type"] == "Seq Scan" and "Filter" in node and node["Relation Name"] not in SMALL
    has_a_time_limit = node.get("Index Name") == "job_documents_by_text"
    return is_scan or (looked_at > BOUND and not has_a_time_limit)


def test_lists_never_load_snapshots(large_sqlite: str) -> None:
    reads = _asked(large_sqlite, [*READS["page_jobs"], *READS["list_jobs"], *READS["get_job"]])
    assert not any("job_snapshots" in query for query, _ in reads)


@pytest.mark.parametrize("name", FILTERS)
def test_a_page_of_any_filter_asks_a_bounded_number_of_questions(large_sqlite: str, name: str) -> None:
    asks = [lambda store: store.page_jobs(FILTERS[name])]
    assert len(_asked(large_sqlite, asks)) <= 25
