"""How many events a second one agent records, each an event row and a folded job row, and with how much memory.

    python benchmarks/recorder.py [--events 1000000] [--naive 2000] [--ledger sqlite] [--ledger postgresql]

Run it on a machine that does nothing else. It writes journals as a publisher and a worker
write them (see ``benchmarks/_sample_journals.py``), then has a process like the agent's drain them into a fresh ledger.
For each ledger it prints: events/s by the clock and by the process's own processor time, the peak of its memory, and
how many times as fast that is as the naive history of ``benchmarks/_naive_history.py`` (an ORM commit for each event)
in the same run.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from _ledgers import LEDGERS, fresh_ledger
from _naive_history import NaiveHistory
from _sample_journals import EVENTS_PER_JOB, published, ran, write_backlog
from jobledger.history import agent
from jobledger.history.event import JobEvent, now
from jobledger.history.ids import new_id
from jobledger.history.journal import journal_files
from jobledger.history.recorder import Recorder
from jobledger.history.sql_store import SqlJobHistoryStore


def main() -> None:
    options = parse()
    if options.drain:
        print(json.dumps(drain(Path(options.drain[0]), options.drain[1])))
        return
    for ledger in options.ledger or LEDGERS:
        measure(ledger, options.events, options.naive)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--naive", type=int, default=2_000, help="events of the naive history")
    parser.add_argument("--ledger", choices=LEDGERS, action="append")
    parser.add_argument("--drain", nargs=2, metavar=("DIRECTORY", "URL"), help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(ledger: str, events: int, naive: int) -> None:
    with tempfile.TemporaryDirectory(prefix="jl-bench-") as name:
        directory = Path(name)
        write_backlog(directory / "journal", events // EVENTS_PER_JOB)
        with fresh_ledger(ledger, directory) as url:
            rate = measure_agent(ledger, events, directory / "journal", url)
        with fresh_ledger(ledger, directory) as url:
            peer = naive_rate(url, naive)
    print(f"{ledger:<10} naive history {peer:8,.0f} events/s   agent / naive {rate / peer:.0f}", flush=True)


def measure_agent(ledger: str, events: int, journals: Path, url: str) -> float:
    command = [sys.executable, __file__, "--drain", str(journals), url]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found = json.loads(answer.stdout)
    rate: float = events / found["seconds"]
    print(
        f"{ledger:<10} agent {rate:8,.0f} events/s ({events / found['cpu']:,.0f} by its processor time)   "
        f"{found['megabytes']:.0f} MB at most, for a backlog of {events:,}",
        flush=True,
    )
    return rate


def drain(journals: Path, url: str) -> dict[str, float]:
    """Record all journals of a directory, as the agent's thread does; return what that took."""
    assert agent.Agent is not None, "the agent's own modules count"
    store = SqlJobHistoryStore.open(url)
    recorder = Recorder(journals, store)
    began, cpu = time.monotonic(), time.process_time()
    while journal_files(journals):
        recorder.ship()
    seconds, spent = time.monotonic() - began, time.process_time() - cpu
    store.close()
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    return {"seconds": seconds, "cpu": spent, "megabytes": megabytes}


def naive_rate(url: str, events: int) -> float:
    history = NaiveHistory(url)
    began = time.monotonic()
    for event in islice(some_events(), events):
        history.record(event)
    rate = events / (time.monotonic() - began)
    history.close()
    return rate


def some_events() -> Iterator[JobEvent]:
    boot_id = new_id()
    number = 0
    while True:
        job_id = new_id()
        yield from published(job_id, number, now(), boot_id)
        yield from ran(job_id, now(), boot_id)
        number += 1


if __name__ == "__main__":
    main()
