"""How fast a ledger tells how many jobs it holds of each status, against counting them in the same run.

    python benchmarks/counts.py [--jobs 100000] [--rounds 200] [--url postgresql://postgres@127.0.0.1/bench]

Fills a ledger with so many jobs (an SQLite file of its own unless an empty database is named), then asks the store for
its counts, and the database for COUNT(*) GROUP BY status: in turn, so that both meet the same machine. Prints the
median and the 99th percentile of each, the ratio of the medians, and a page of failure groups and an hour's statistics
beside it. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from _ledger_filler import DAWN, fill
from jobledger.history.schema import jobs
from jobledger.history.sql_database import SqlDatabase
from jobledger.history.sql_store import SqlJobHistoryStore
from sqlalchemy import func, select

#: Recounting is slow; it is asked so many times less often.
FEWER: int = 10
_RECOUNT = select(jobs.c.status, func.count()).group_by(jobs.c.status)


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="jl-bench-", dir="/tmp") as directory:
        url = options.url or f"sqlite:///{Path(directory) / 'ledger.db'}"
        started = time.perf_counter()
        fill(url, options.jobs, search=False)
        print(f"{options.jobs:,} jobs in {time.perf_counter() - started:.0f} s: {url.partition(':')[0]}")
        measure(url, options.rounds)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--url")
    return parser.parse_args()


def measure(url: str, rounds: int) -> None:
    store, database = SqlJobHistoryStore.open(url), SqlDatabase(url)
    counted = recount(database)
    assert counted == {status: count for status, count in store.counts().statuses.items() if count}, counted
    times: dict[str, list[float]] = {"counts": [], "COUNT(*)": [], "statistics": [], "failure groups": []}
    for number in range(rounds):
        times["counts"].append(timed(store.counts))
        times["statistics"].append(timed(lambda: store.statistics(DAWN, DAWN + timedelta(hours=1))))
        times["failure groups"].append(timed(store.failure_groups))
        if number % FEWER == 0:
            times["COUNT(*)"].append(timed(lambda: recount(database)))
    for what, seconds in times.items():
        print(f"  {what:<15} p50 {statistics.median(seconds):8.3f} ms   p99 {percentile(seconds):8.3f} ms")
    ratio = statistics.median(times["COUNT(*)"]) / statistics.median(times["counts"])
    print(f"  counts are {ratio:,.0f} times as fast as COUNT(*)")
    database.close()
    store.close()


def recount(database: SqlDatabase) -> dict[str, int]:
    with database.reading() as connection:
        return {row.status: row[1] for row in connection.execute(_RECOUNT)}


def timed(ask: Callable[[], object]) -> float:
    started = time.perf_counter()
    ask()
    return (time.perf_counter() - started) * 1_000


def percentile(seconds: list[float]) -> float:
    return sorted(seconds)[min(len(seconds) - 1, len(seconds) * 99 // 100)]


if __name__ == "__main__":
    main()
