"""How long a page of fifty jobs takes, for every filter that an index covers, at any size and depth.

    python benchmarks/pages.py [--jobs 10000 1000000] [--history-url URL] [--rounds 300] [--keep DIR]

Fills a ledger of each size (an SQLite file; or an empty PostgreSQL database, for one size), reads page 1 and page
10,000 of each filter, or one three quarters into a smaller ledger, and prints p50 and p99 in the store, the ratio of
the slowest to the fastest p50 over the sizes and depths where the page is full, and beside it the same page by OFFSET.
``--jobs 10000000`` takes an hour and 15 GB. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

from _ledger_filler import DAWN, STEP, fill, seconds
from jobledger.history.failure_group import failure_group_of
from jobledger.history.job import JobStatus
from jobledger.history.job_cursor import cursor_of
from jobledger.history.job_history_store import JobFilter
from jobledger.history.sql_store import SqlJobHistoryStore

LIMIT = 50
DEEP = 10_000


def main() -> None:
    options = parse()
    medians: defaultdict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="jl-bench-") as scratch:
        for count in options.jobs:
            url = options.history_url or f"sqlite:///{options.keep or scratch}/ledger-{count}.db"
            for name, median in measure(ledger(url, count), count, options.rounds):
                medians[name].append(median)
    print("\nslowest / fastest over sizes and depths")
    for name, values in medians.items():
        print(f"  {name:<28} {max(values) / min(values):5.2f}x")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--history-url", help="an empty PostgreSQL database")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--keep", type=Path, help="a directory whose ledgers are used again")
    options = parser.parse_args()
    if options.history_url and len(options.jobs) > 1:
        parser.error("one database holds one size: name it by --jobs")
    return options


def ledger(url: str, count: int) -> SqlJobHistoryStore:
    """Return the ledger, filled unless it is already."""
    store = SqlJobHistoryStore.open(url)
    if not store.list_jobs(limit=1):
        began = time.perf_counter()
        fill(url, count, search=False)
        print(f"\nfilled {count:,} jobs in {seconds(began)}")
    return store


def measure(store: SqlJobHistoryStore, count: int, rounds: int) -> Iterable[tuple[str, float]]:
    print(f"\n{count:,} jobs{'':<22}page 1 p50    p99   deep p50    p99   ms     OFFSET")
    for name, wanted in filters(store, count).items():
        deep = place_of(wanted, count)
        first = timed(lambda wanted=wanted: store.page_jobs(wanted, None, LIMIT), rounds)  # type: ignore[misc]
        last = timed(lambda wanted=wanted, deep=deep: store.page_jobs(wanted, deep, LIMIT), rounds)  # type: ignore[misc]
        peer = offset_of(store, name, count)
        print(f"  {name:<28} {quantiles(first)}   {quantiles(last)}   {peer}")
        pages = ((None, first), (deep, last))
        yield from ((name, statistics.median(taken)) for place, taken in pages if is_full(store, wanted, place))
    store.close()


def is_full(store: SqlJobHistoryStore, wanted: JobFilter, cursor: str | None) -> bool:
    return len(store.page_jobs(wanted, cursor, LIMIT).entries) == LIMIT


def filters(store: SqlJobHistoryStore, count: int) -> dict[str, JobFilter]:
    """Return every way that docs/lists.md calls fast, with a common value each."""
    middle = DAWN + STEP * (count // 2)
    failed = JobFilter(statuses=(JobStatus.FAILED,))
    group = failure_group_of(store.page_jobs(failed, limit=1).entries[0])
    ends = (JobStatus.COMPLETED, JobStatus.FAILED)
    return {
        "everything": JobFilter(),
        "times": JobFilter(until=middle),
        "one status": JobFilter(statuses=(JobStatus.COMPLETED,)),
        "two statuses": JobFilter(statuses=ends),
        "task": JobFilter(task="shop.ship"),
        "task, status": JobFilter(task="shop.ship", statuses=(JobStatus.FAILED,)),
        "task, two statuses, times": JobFilter(task="shop.ship", statuses=ends, until=middle),
        "queue": JobFilter(queue="main"),
        "queue, status": JobFilter(queue="main", statuses=(JobStatus.COMPLETED,)),
        "worker": JobFilter(worker_id="worker1@host"),
        "worker, status": JobFilter(worker_id="worker1@host", statuses=(JobStatus.FAILED,)),
        "tag": JobFilter(tags=("prod",)),
        "tag, status": JobFilter(tags=("prod",), statuses=(JobStatus.COMPLETED,)),
        "metadata": JobFilter(metadata=(("customer", "c3"),)),
        "group": JobFilter(group_id=f"group-{count // 1_000}"),
        "family": JobFilter(root_id=f"root-{count // 2_000}"),
        "group of failures": JobFilter(failure_group=group.fingerprint if group else None),
    }


def place_of(wanted: JobFilter, count: int) -> str:
    """Return a cursor as deep as page 10,000, or three quarters into a smaller ledger."""
    depth = min(DEEP * LIMIT, count * 3 // 4)
    newest = wanted.until or DAWN + STEP * count
    return cursor_of(max(newest - STEP * depth, DAWN + timedelta(seconds=1)), "f")


def timed(ask: Callable[[], object], rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds + 20):
        began = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - began) * 1_000)
    # The first ones fill caches and prepare statements.
    return sorted(taken[20:])


def quantiles(taken: list[float]) -> str:
    return f"{statistics.median(taken):8.3f} {taken[int(len(taken) * 0.99)]:7.3f}"


def offset_of(store: SqlJobHistoryStore, name: str, count: int) -> str:
    """Return how long the peer takes: the same store, asked for a page by its number."""
    if name not in ("everything", "one status"):
        return ""
    status = JobStatus.COMPLETED if name == "one status" else None
    depth = min(DEEP * LIMIT, count * 3 // 4)
    taken = timed(lambda: store.list_jobs(status, LIMIT, depth), 5)
    return f"{statistics.median(taken):8.1f} ms"


if __name__ == "__main__":
    main()
