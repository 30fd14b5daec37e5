"""Ledgers that older versions left behind: refused with the command that helps, then upgraded, with nothing lost."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from jobledger.errors import HistoryUnavailable
from jobledger.history import schema_version
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.job import (
    Evidence,
    FailureKind,
    JobEnd,
    JobFacts,
    JobHistoryEntry,
    JobStatus,
    Progress,
    Snapshot,
)
from jobledger.history.job_history_store import CancelIntent, JobFilter, RecordingGap
from jobledger.history.memory_store import MemoryJobHistoryStore
from jobledger.history.node import Node
from jobledger.history.schema import METADATA
from jobledger.history.schema_objects import objects_in, objects_of
from jobledger.history.schema_version import REVISIONS, VERSION_TABLE, SchemaState, SchemaVersion
from jobledger.history.sql_store import SqlJobHistoryStore
from msgspec.structs import replace
from sqlalchemy import make_url

from .raw_database import connected, differences_from_metadata, forget_ledger, load_old_ledger, run, schema_of

OpenStore = Callable[[str], SqlJobHistoryStore]

DAWN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
IDS = [f"0199f000-0000-7000-8000-00000000000{number}" for number in range(6)]
RUN, BOOT = "0199f000-0000-7000-9000-000000000001", "0199f000-0000-7000-a000-000000000001"
JOURNAL = f"{BOOT}.0199f000-0000-7000-b000-000000000001"
TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/ship.py", line 12, in ship
    raise ValueError(number)
ValueError: no such order: 1001
"""


def after(seconds: float) -> datetime:
    return DAWN + timedelta(seconds=seconds)


def queued(number: int, **facts: Any) -> JobHistoryEntry:
    task = "shop.ship" if number % 2 else "shop.bill"
    known = JobFacts(task=task, queue="celery", priority=5, payload_summary=f"order {1000 + number}", **facts)
    return JobHistoryEntry(job_id=IDS[number], created_at=after(number), facts=known, facts_rank=3)


def ran(number: int, facts: dict[str, Any], **more: Any) -> JobHistoryEntry:
    entry = queued(number, **facts)
    run_of_it = {"run_id": RUN, "run_worker_id": "node1@test", "run_boot_id": BOOT}
    seen = {"handed_over": True, "attempt_started": True, "started_at": after(number + 10.1)}
    return JobHistoryEntry(
        job_id=entry.job_id,
        created_at=entry.created_at,
        facts=entry.facts,
        facts_rank=3,
        **(run_of_it | seen | more),  # type: ignore[arg-type]
    )


def end(status: JobStatus, number: int, **more: Any) -> JobEnd:
    return JobEnd(status=status, at=after(number + 20), run_id=RUN, worker_id="node1@test", **more)


COMPLETED = end(JobStatus.COMPLETED, 0, runtime=9.9, result_ref='{"rows": 3}')
FAILED = end(
    JobStatus.FAILED,
    1,
    failure_kind=FailureKind.EXCEPTION,
    error_type="ValueError",
    error_message="no such order: 1001",
    traceback=TRACEBACK,
)
CANCELLED = end(JobStatus.CANCELLED, 2, evidence=Evidence.DEATH, detail="its process was killed (9)")
ENTRIES = [
    ran(0, {"group_id": "batch-7"}, end=COMPLETED),
    ran(1, {"tags": ("night", "eu"), "group_id": "batch-7"}, end=FAILED),
    ran(
        2,
        {"group_id": "batch-7"},
        end=CANCELLED,
        cancel_requested_at=after(15),
        cancel_actor="eva",
        cancel_reason="wrong customer",
    ),
    ran(
        3,
        {},
        cancel_requested_at=after(30),
        cancel_actor="eva",
        cancel_reason="enough",
        progress=Progress(done=3, total=10, text="rows"),
        progress_at=after(16),
    ),
    ran(4, {}),
    queued(5, retry_of=IDS[1], root_id=IDS[1]),
]
STATUSES = ["COMPLETED", "FAILED", "CANCELLED", "RUNNING", "RUNNING", "QUEUED"]
SNAPSHOT = Snapshot(sealed="gAAAA-sealed", digest="d" * 64, size=42, key_fingerprint="0badc0de")
NODE = Node(
    boot_id=BOOT,
    name="node1@test",
    host="worker1",
    home="0199f000-0000-7000-c000-000000000001",
    pid=4711,
    pool="prefork",
    concurrency=2,
    queues=("celery",),
    versions={"celery": "5.7.0"},
    started_at=DAWN,
)


def observed(kind: EventKind, number: int, seconds: float, **more: Any) -> JobEvent:
    return JobEvent(
        kind=kind,
        job_id=IDS[number],
        at=after(seconds),
        run_id=RUN,
        worker_id="node1@test",
        boot_id=BOOT,
        pid=4711,
        **more,
    )


def events_of(number: int) -> list[tuple[int, JobEvent]]:
    """What is recorded of a job, with its place in the order of recording."""
    facts, place = ENTRIES[number].facts, 7 + 2 * number
    submitted = JobEvent(kind=EventKind.SUBMITTED, job_id=IDS[number], at=after(number), source="test", facts=facts)
    found = [(number + 1, submitted)]
    if number < 5:
        found.append((place, observed(EventKind.HANDED_OVER, number, number + 10)))
        found.append((place + 1, observed(EventKind.STARTED, number, number + 10.1)))
    asked = {"kind": EventKind.CANCEL_REQUESTED, "job_id": IDS[number], "actor": "eva"}
    match number:
        case 0:
            found.append((17, observed(EventKind.ENDED, 0, 20, end=COMPLETED)))
        case 1:
            found.append((18, observed(EventKind.ENDED, 1, 21, end=FAILED)))
        case 2:
            found.append((19, JobEvent(at=after(15), reason="wrong customer", **asked)))  # type: ignore[arg-type]
            found.append((20, observed(EventKind.ENDED, 2, 22, end=CANCELLED)))
        case 3:
            told = JobEvent(at=after(30), reason="enough", source="cancel_job", **asked)  # type: ignore[arg-type]
            found.append((21, told))
    return found


@pytest.fixture
def old_url(ledger_url: str) -> str:
    load_old_ledger(ledger_url, "0001")
    return ledger_url


@pytest.fixture
def upgraded(old_url: str, open_store: OpenStore) -> SqlJobHistoryStore:
    schema_version.upgrade(old_url)
    return open_store(old_url)


# The old ledger


def test_the_asset_is_exactly_a_ledger_of_revision_0001(old_url: str) -> None:
    assert schema_version.check(old_url) == SchemaVersion(SchemaState.OLDER, "0001")
    with connected(old_url) as connection:
        version_table = {f"table {VERSION_TABLE}", f"column {VERSION_TABLE}.version_num"}
        found = objects_in(connection) - version_table
        assert found == objects_of(connection, schema_version.alembic_config(), "0001")
        assert found != objects_of(connection, schema_version.alembic_config(), REVISIONS[-1])


def test_whatever_opens_it_says_which_command_helps(old_url: str, open_store: OpenStore) -> None:
    with pytest.raises(HistoryUnavailable) as refusal:
        open_store(old_url)
    assert f"older schema, 0001 instead of {REVISIONS[-1]}; stop what writes to it and run `" in str(refusal.value)
    [command] = [part for part in str(refusal.value).split("`") if part.startswith("jobledger")]
    _run_command(command)
    assert open_store(old_url).get_job(IDS[0]) is not None


def test_the_command_never_shows_a_password(old_url: str, open_store: OpenStore) -> None:
    url = make_url(old_url)
    if url.get_backend_name() == "sqlite":
        pytest.skip("a file has no password")
    with pytest.raises(HistoryUnavailable) as refusal:
        open_store(url.set(password="hunter2").render_as_string(hide_password=False))
    assert "hunter2" not in str(refusal.value)
    assert "run `jobledger db upgrade` with JOBLEDGER_HISTORY_URL set to its address, postgresql://" in str(
        refusal.value
    )


def test_an_agent_says_so_and_records_after_the_upgrade(
    old_url: str, data_dir: Path, make_site: Callable[..., Any], eventually: Any
) -> None:
    site = make_site(data_dir, old_url)
    worker = site.start_worker(wait=False)
    log = data_dir / "agent.log"
    eventually(lambda: log.exists() and "jobledger db upgrade" in log.read_text(), 30, "the agent says nothing")
    assert log.read_text().count("older schema") == 1
    eventually(lambda: f"{worker.name} ready" in worker.log.read_text(), 30, "jobs do not run on")
    schema_version.upgrade(old_url)
    eventually(lambda: any(node.pid == worker.pid for node in site.store.list_nodes()), 30, "nobody records")


# The upgrade


def test_an_upgrade_says_what_it_found_and_what_it_did(old_url: str) -> None:
    done = schema_version.upgrade(old_url)
    assert done == schema_version.Upgrade(SchemaVersion(SchemaState.OLDER, "0001"), REVISIONS[1:])
    again = schema_version.upgrade(old_url)
    assert again == schema_version.Upgrade(SchemaVersion(SchemaState.CURRENT, REVISIONS[-1]), ())


def test_an_upgraded_ledger_has_the_schema_of_a_fresh_one(old_url: str) -> None:
    schema_version.upgrade(old_url)
    found = schema_of(old_url)
    assert differences_from_metadata(old_url) == []
    forget_ledger(old_url)
    SqlJobHistoryStore.open(old_url).close()
    assert found == schema_of(old_url)


def test_every_jobs_entry_is_the_same(upgraded: SqlJobHistoryStore) -> None:
    assert [upgraded.get_job(job_id) for job_id in IDS] == ENTRIES
    assert [str(entry.status) for entry in ENTRIES] == STATUSES
    assert upgraded.list_jobs() == ENTRIES[::-1]


def test_every_jobs_events_log_and_snapshot_are_the_same(upgraded: SqlJobHistoryStore) -> None:
    for number, job_id in enumerate(IDS):
        assert [(each.seq, each.event) for each in upgraded.get_job_events(job_id)] == events_of(number)
        assert upgraded.get_snapshot(job_id) == (SNAPSHOT if number < 2 else None)
    said = JobEvent(kind=EventKind.LOG, job_id=IDS[3], at=after(17), text="three rows so far")
    assert [line.event for job_id in IDS for line in upgraded.get_job_log(job_id)] == [said]


def test_nodes_journals_gaps_and_cancels_are_the_same(upgraded: SqlJobHistoryStore) -> None:
    assert upgraded.list_nodes() == [NODE]
    assert upgraded.journal_ends([JOURNAL]) == {JOURNAL: 4096}
    [gap] = upgraded.recording_gaps()
    assert gap == RecordingGap(journal=JOURNAL, dropped=2, poisoned=1, updated_at=gap.updated_at)
    wish = CancelIntent(job_id=IDS[3], requested_at=after(30), actor="eva", reason="enough")
    assert upgraded.open_cancels() == [wish]
    assert upgraded.acquire_lease("leader", "another", 5) == 2


@pytest.mark.parametrize("status", JobStatus)
def test_the_new_ways_to_ask_know_the_old_jobs(upgraded: SqlJobHistoryStore, status: JobStatus) -> None:
    page = upgraded.page_jobs(JobFilter(statuses=(status,)))
    assert [entry.job_id for entry in page.entries] == [
        job_id for job_id, is_status in zip(IDS, STATUSES, strict=True) if is_status == status
    ][::-1]


def test_old_failures_are_in_their_groups_and_leave_them_once(upgraded: SqlJobHistoryStore) -> None:
    [group] = upgraded.failure_groups().groups
    assert (group.count, group.example_job_id, group.last_seen_at) == (1, IDS[1], FAILED.at)
    assert [entry.job_id for entry in upgraded.page_jobs(JobFilter(failure_group=group.fingerprint)).entries] == [
        IDS[1]
    ]
    again = JobEvent(kind=EventKind.ENDED, job_id="again", at=after(90), end=replace(FAILED, at=after(90)))
    submitted = JobEvent(kind=EventKind.SUBMITTED, job_id="again", at=after(80), facts=ENTRIES[1].facts)
    upgraded.append([submitted, again])
    corrected = end(JobStatus.COMPLETED, 70)
    upgraded.append([observed(EventKind.ENDED, 1, 90, end=corrected)])
    [left] = upgraded.failure_groups().groups
    assert (left.fingerprint, left.count, left.example_job_id) == (group.fingerprint, 1, "again")


def test_an_old_job_goes_on(upgraded: SqlJobHistoryStore) -> None:
    done = JobEnd(status=JobStatus.COMPLETED, at=after(60), run_id=RUN, worker_id="node1@test")
    upgraded.append([observed(EventKind.ENDED, 4, 60, end=done)])
    assert upgraded.get_job(IDS[4]) == ran(4, {}, end=done)
    assert [each.seq for each in upgraded.get_job_events(IDS[4])] == [5, 15, 16, 22]


def test_a_new_job_is_kept_as_in_a_fresh_ledger(upgraded: SqlJobHistoryStore) -> None:
    # An upgraded table has its columns in another order.
    facts = JobFacts(task="shop.bill", queue="late", priority=9, tags=("new",), metadata=(("customer", "acme"),))
    events = [
        JobEvent(kind=EventKind.SUBMITTED, job_id="new", at=after(70), facts=facts),
        JobEvent(kind=EventKind.STARTED, job_id="new", at=after(71), run_id=RUN, worker_id="node2@test"),
        JobEvent(kind=EventKind.ENDED, job_id="new", at=after(72), end=FAILED),
    ]
    fresh = MemoryJobHistoryStore()
    for store in (upgraded, fresh):
        store.append(events)
    assert upgraded.get_job("new") == fresh.get_job("new")
    assert upgraded.list_jobs(JobStatus.FAILED)[0].job_id == "new"


def test_a_failed_upgrade_changes_nothing(old_url: str) -> None:
    with connected(old_url) as connection:
        [*_, new] = sorted(
            METADATA.tables.keys()
            - {each.removeprefix("table ") for each in objects_in(connection) if "table " in each}
        )
    run(old_url, f"CREATE TABLE {new} (in_the_way TEXT)")
    before = schema_of(old_url)
    with pytest.raises(HistoryUnavailable, match="already exists"):
        schema_version.upgrade(old_url)
    assert schema_of(old_url) == before
    assert schema_version.check(old_url) == SchemaVersion(SchemaState.OLDER, "0001")
    run(old_url, f"DROP TABLE {new}")
    assert schema_version.upgrade(old_url).applied == REVISIONS[1:]


def test_two_upgrades_at_once_do_no_harm(old_url: str) -> None:
    upgrade = (
        "import sys; from jobledger.history.schema_version import upgrade; sys.stdin.readline();"
        "print(len(upgrade(sys.argv[1]).applied))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", upgrade, old_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
    assert told == ["0", "0", str(len(REVISIONS) - 1)]
    assert schema_version.check(old_url).state is SchemaState.CURRENT


def _run_command(command: str) -> None:
    program = Path(sys.executable).with_name("jobledger")
    subprocess.run(command.replace("jobledger", shlex.quote(str(program)), 1), shell=True, check=True, timeout=60)
