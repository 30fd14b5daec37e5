"""Ledgers of any size for measurements: rows of real entries, written at once instead of event by event."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

from jobledger.history.job import FailureKind, JobEnd, JobFacts, JobHistoryEntry, JobStatus
from jobledger.history.job_row import row_of
from jobledger.history.schema import jobs
from jobledger.history.sql_bulk import append_rows
from jobledger.history.sql_database import SqlDatabase
from jobledger.history.sql_documents import note_for_search
from jobledger.history.sql_labels import relabel
from jobledger.history.sql_store import SqlJobHistoryStore
from jobledger.history.sql_sums import add_sums
from jobledger.history.sums import Sums
from sqlalchemy import Connection, text

DAWN: Final = datetime(2026, 1, 1, tzinfo=UTC)
#: Between two submissions; every seventh job is as old as the one before it.
STEP: Final = timedelta(milliseconds=10)
BATCH: Final = 5_000
TASKS: Final = ("shop.ship", "shop.bill", "shop.report", "media.render", "media.scale", "mail.send")
QUEUES: Final = ("main", "gpu", "mail")
WORKERS: Final = tuple(f"worker{number}@host" for number in range(8))
WORDS: Final = (
    "portrait",
    "checkpoint",
    "sampler",
    "invoice",
    "order",
    "parcel",
    "label",
    "margin",
    "upscale",
    "draft",
)
#: What exactly one job in ten thousand says, and what nobody does.
RARE_WORD: Final = "quicksilver"
ABSENT_WORD: Final = "xylophone"
COMMON_WORD: Final = "portrait"
TRACEBACK: Final = (
    'Traceback (most recent call last):\n  File "/srv/shop/jobs.py", line 41, in {0}\n    raise {1}("{2}")\n'
)
FAILURES: Final = (("ValueError", "bad order {}"), ("TimeoutError", "no answer after {} s"), ("MemoryError", "CUDA {}"))


def fill(url: str, count: int, *, search: bool = True, index: bool = True) -> None:
    """Make a ledger at ``url`` and put so many jobs into it; leaves the planner's statistics up to date.

    Without ``search`` they are not noted for searches; without ``index`` their documents are left to be written.
    """
    store = SqlJobHistoryStore.open(url)
    database = SqlDatabase(url)
    entries = entries_of(count)
    while batch := list(islice(entries, BATCH)):
        with database.writing() as connection:
            _write(connection, batch, search)
    while search and index and store.index_for_search(BATCH):
        pass
    _analyse(database)
    database.close()
    store.close()


def entries_of(count: int) -> Iterator[JobHistoryEntry]:
    """Give so many jobs, oldest first, always the same: mostly completed ones, the newest partly unfinished."""
    chance = random.Random(count)
    created_at = DAWN
    for number in range(count):
        created_at += STEP if number % 7 else timedelta(0)
        yield _entry(number, created_at, chance, is_new=count - number <= count // 200)


def _entry(number: int, created_at: datetime, chance: random.Random, *, is_new: bool) -> JobHistoryEntry:
    started_at = None if is_new and number % 3 else created_at + timedelta(seconds=chance.random())
    is_ended = started_at is not None and not (is_new and number % 2)
    return JobHistoryEntry(
        job_id=f"{number:012x}-7000-8000-{chance.getrandbits(48):012x}",
        created_at=created_at,
        facts=_facts(number, chance),
        facts_rank=2,
        handed_over=started_at is not None,
        published=True,
        started_at=started_at,
        attempt_started=started_at is not None,
        run_id=f"run-{number}" if started_at else None,
        run_worker_id=WORKERS[number % 8] if started_at else None,
        run_boot_id="boot" if started_at else None,
        end=_end(number, started_at, chance) if is_ended and started_at else None,
    )


def _facts(number: int, chance: random.Random) -> JobFacts:
    words = [*chance.choices(WORDS, k=6), f"{chance.getrandbits(32):08x}"]
    return JobFacts(
        # Half of all jobs are of the first task, a few of the last.
        task=TASKS[min(int(chance.expovariate(0.7)), 5)],
        queue=QUEUES[min(int(chance.expovariate(0.9)), 2)],
        priority=3,
        payload_summary=" ".join(words) + (f" {RARE_WORD}" if number % 10_000 == 77 else ""),
        tags=tuple(tag for tag, share in (("nightly", 50), ("prod", 2)) if number % share == 0),
        metadata=(("customer", f"c{number % 997}"),) if number % 3 == 0 else (),
        group_id=f"group-{number // 500}" if number % 5 == 0 else None,
        root_id=f"root-{number // 1_000}" if number % 1_000 in (500, 501) else None,
    )


def _end(number: int, started_at: datetime, chance: random.Random) -> JobEnd:
    status = JobStatus.FAILED if number % 13 == 0 else JobStatus.CANCELLED if number % 97 == 0 else JobStatus.COMPLETED
    runtime = chance.expovariate(1)
    end = {"status": status, "at": started_at + timedelta(seconds=runtime), "run_id": f"run-{number}"}
    if status is not JobStatus.FAILED:
        return JobEnd(**end, worker_id=WORKERS[number % 8], runtime=runtime)
    error_type, message = FAILURES[number % 3]
    said = message.format(number % 1_000)
    return JobEnd(
        **end,
        worker_id=WORKERS[number % 8],
        runtime=runtime,
        failure_kind=FailureKind.EXCEPTION,
        error_type=error_type,
        error_message=said,
        traceback=TRACEBACK.format(f"step_{number % 4}", error_type, said) + "  # context\n" * 100,
    )


def _write(connection: Connection, entries: Sequence[JobHistoryEntry], search: bool) -> None:
    append_rows(connection, jobs, tuple(jobs.c.keys()), [row_of(entry) for entry in entries])
    relabel(connection, {}, entries)
    if search:
        note_for_search(connection, {}, entries)
    sums = Sums()
    for entry in entries:
        sums.replace(None, entry)
    add_sums(connection, sums)


def _analyse(database: SqlDatabase) -> None:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE" if not database.is_sqlite else "PRAGMA wal_checkpoint(TRUNCATE)"))


def seconds(since: float) -> str:
    """Return how long ago that was, for a remark."""
    return f"{time.perf_counter() - since:.0f} s"
