"""How long a search by words takes, beside LIKE over the same text, and what the index of words costs.

    python benchmarks/search.py [--jobs 1000000] [--history-url URL] [--rounds 100] [--keep DIR]

Fills a ledger (an SQLite file, or an empty PostgreSQL database) without its index of words, then writes the index as
the agents do, and searches for a common, a rare and an absent word. Prints the processor time of this process for each
job that was indexed, p50 and p99 of each search's first page, and the time of LIKE. Run it on a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from _ledger_filler import ABSENT_WORD, COMMON_WORD, RARE_WORD, fill, seconds
from jobledger.history.job import JobStatus
from jobledger.history.job_history_store import JobFilter
from jobledger.history.schema import job_documents
from jobledger.history.sql_database import SqlDatabase
from jobledger.history.sql_store import SqlJobHistoryStore
from pages import quantiles, timed
from sqlalchemy import func, select

SEARCHES = {
    "a common word": JobFilter(text=COMMON_WORD),
    "a rare word": JobFilter(text=RARE_WORD),
    "a rare word, one status": JobFilter(text=RARE_WORD, statuses=(JobStatus.FAILED,)),
    "an absent word": JobFilter(text=ABSENT_WORD),
    "two common words": JobFilter(text="portrait parcel"),
    "an absent word of common parts": JobFilter(text="portrailer"),
}


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="jl-bench-") as scratch:
        url = options.history_url or f"sqlite:///{options.keep or scratch}/searched-{options.jobs}.db"
        store = SqlJobHistoryStore.open(url)
        if not store.list_jobs(limit=1):
            began = time.perf_counter()
            fill(url, options.jobs, index=False)
            print(f"filled {options.jobs:,} jobs in {seconds(began)}")
        index(store)
        search(store, options.rounds)
        like(url)
        store.close()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--history-url", help="an empty PostgreSQL database")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="a directory whose ledger is used again")
    return parser.parse_args()


def index(store: SqlJobHistoryStore) -> None:
    """Write the index in parts as small as an agent's."""
    began, cpu, jobs = time.perf_counter(), time.process_time(), 0
    longest = 0.0
    while True:
        started = time.perf_counter()
        indexed = store.index_for_search(250)
        if not indexed:
            break
        jobs += indexed
        longest = max(longest, time.perf_counter() - started)
    if jobs:
        each = (time.process_time() - cpu) / jobs * 1e6
        print(f"indexed {jobs:,} jobs in {seconds(began)}: {each:.0f} us of processor time each here,")
        print(f"  and 250 at once took {longest * 1_000:.0f} ms at most")


def search(store: SqlJobHistoryStore, rounds: int) -> None:
    print(f"\n{'first page of':<34}     p50     p99 ms")
    for name, wanted in SEARCHES.items():
        page = store.page_jobs(wanted)
        what = f"{len(page.entries)} jobs{', partial' if page.next_cursor and len(page.entries) < 50 else ''}"
        print(f"  {name:<32} {quantiles(timed(lambda wanted=wanted: store.page_jobs(wanted), rounds))}   {what}")  # type: ignore[misc]


def like(url: str) -> None:
    """Time the peer: the same rows, without an index."""
    database = SqlDatabase(url)
    for word in (COMMON_WORD, RARE_WORD, ABSENT_WORD):
        # An expression: PostgreSQL would use the index for the column itself.
        document = func.lower(job_documents.c.document)
        newest = select(job_documents.c.job_id).where(document.like(f"%{word}%"))
        newest = newest.order_by(job_documents.c.created_at.desc()).limit(50)
        with database.reading() as connection:
            taken = timed(lambda newest=newest: connection.execute(newest).all(), 3)  # type: ignore[misc]
        print(f"  LIKE, {word:<26} {statistics.median(taken):8.1f} ms")
    database.close()


if __name__ == "__main__":
    main()
