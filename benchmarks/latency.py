"""How long a state change takes until it is visible in the ledger, idle and saturated, beside a naive history.

    python benchmarks/latency.py [--probes 300] [--rate 5000] [--ledger sqlite] [--ledger postgresql]

Starts a real agent. Idle: nothing happens but one event every 50 to 150 ms. Saturated: meanwhile another process writes
``--rate`` events a second into journals of its own, as a busy worker does. Each probe is an event that is appended to
a journal, and a reader that asks the ledger for its job until it is there, at most every half millisecond. Prints the
50th and 99th percentile, and the processor time of the agent in percent of one core (also in ten seconds without any
event). The peer is the naive history of ``benchmarks/_naive_history.py``: how long its commit of one event takes, with
nothing beside it. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _ledgers import LEDGERS, agent_of, cpu_seconds, fresh_ledger, percentile
from _naive_history import NaiveHistory
from _sample_journals import EVENTS_PER_JOB, SampleJournals
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.ids import new_id
from jobledger.history.sql_store import SqlJobHistoryStore
from jobledger.settings import load_settings
from jobledger.workers.recording import JobRecorder

_LOOK = 0.0005
_PATIENCE = 30.0
_QUIET_SECONDS = 10.0


def main() -> None:
    options = parse()
    if options.load is not None:
        write_load(Path(options.load), options.rate)
        return
    for ledger in options.ledger or LEDGERS:
        with temporary_directory() as directory, fresh_ledger(ledger, directory) as url:
            measure(ledger, url, directory, options)
        with temporary_directory() as directory, fresh_ledger(ledger, directory) as url:
            show(ledger, "naive history", naive_waits(url, options.probes))


@contextmanager
def temporary_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="jl-bench-", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probes", type=int, default=300)
    parser.add_argument("--rate", type=int, default=5_000, help="events a second while saturated")
    parser.add_argument("--ledger", choices=LEDGERS, action="append")
    parser.add_argument("--load", metavar="DIRECTORY", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(ledger: str, url: str, data_dir: Path, options: argparse.Namespace) -> None:
    os.environ["JOBLEDGER_DATA_DIR"] = str(data_dir)
    os.environ["JOBLEDGER_HISTORY_URL"] = url
    recorder, store = JobRecorder(load_settings()), SqlJobHistoryStore.open(url)
    wait_for(store, write(recorder))
    agent = agent_of(data_dir)
    show(ledger, "idle", waits(recorder, store, options.probes))
    began, before = time.monotonic(), cpu_seconds(agent)
    time.sleep(_QUIET_SECONDS)
    show_cost(ledger, "agent without any event", agent, began, before)
    with load(recorder.journal_dir, options.rate):
        began, before = time.monotonic(), cpu_seconds(agent)
        show(ledger, "saturated", waits(recorder, store, options.probes))
        show_cost(ledger, f"agent at {options.rate:,} events/s", agent, began, before)
    store.close()
    recorder.goodbye()


def show_cost(ledger: str, what: str, agent: set[int], began: float, before: float) -> None:
    share = (cpu_seconds(agent) - before) / (time.monotonic() - began)
    print(f"{ledger:<10} {what}: {100 * share:.2f} % of a core", flush=True)


def waits(recorder: JobRecorder, store: SqlJobHistoryStore, probes: int) -> list[float]:
    found = []
    for _ in range(probes):
        time.sleep(random.uniform(0.05, 0.15))
        began = time.monotonic()
        wait_for(store, write(recorder))
        found.append(time.monotonic() - began)
    return found


def write(recorder: JobRecorder) -> str:
    job_id = new_id()
    recorder.record(JobEvent(kind=EventKind.PUBLISHED, job_id=job_id, at=now(), source="benchmark"))
    return job_id


def wait_for(store: SqlJobHistoryStore, job_id: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while store.get_job(job_id) is None:
        if time.monotonic() > deadline:
            raise TimeoutError("the event does not become visible")
        time.sleep(_LOOK)


@contextmanager
def load(journals: Path, rate: int) -> Iterator[None]:
    writer = subprocess.Popen([sys.executable, __file__, "--load", str(journals), "--rate", str(rate)])
    try:
        time.sleep(1)
        yield
    finally:
        writer.terminate()
        writer.wait()


def write_load(directory: Path, rate: int) -> None:
    """Write whole jobs at a steady rate, until killed."""
    journals = SampleJournals(directory)
    number = 0
    began = time.monotonic()
    while True:
        due = int((time.monotonic() - began) * rate / EVENTS_PER_JOB)
        while number < due:
            journals.write_job(number, now(), now())
            number += 1
        time.sleep(0.001)


def naive_waits(url: str, probes: int) -> list[float]:
    history = NaiveHistory(url)
    found = []
    for _ in range(probes):
        event = JobEvent(kind=EventKind.PUBLISHED, job_id=new_id(), at=now(), source="benchmark")
        began = time.monotonic()
        history.record(event)
        found.append(time.monotonic() - began)
    history.close()
    return found


def show(ledger: str, what: str, seconds: list[float]) -> None:
    median, tail = percentile(seconds, 0.5), percentile(seconds, 0.99)
    print(f"{ledger:<10} {what:<14} p50 {1_000 * median:6.1f} ms   p99 {1_000 * tail:6.1f} ms", flush=True)


if __name__ == "__main__":
    main()
