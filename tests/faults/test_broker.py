"""Dropped connections and a restarted broker: no job runs twice on a node, none is lost, and cancels hold."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from jobledger.history.event import EventKind
from jobledger.history.job import JobStatus


class OwnBroker:
    """A broker of the test's own, with AOF, that can be stopped and started again."""

    def __init__(self, program: str, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        self._command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--loglevel", "warning"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port) as client:
            return bool(client.ping())
        return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def broker(redis_program: str, tmp_path: Path, eventually: Any) -> Iterator[OwnBroker]:
    broker = OwnBroker(redis_program, tmp_path)
    broker.start()
    eventually(broker.answers)
    yield broker
    broker.kill()


@pytest.fixture
def own_site(broker: OwnBroker, data_dir: Path, make_site: Any) -> Any:
    site = make_site(data_dir, None, redis_url=broker.url)
    yield site
    if not broker.answers():
        broker.start()


@pytest.mark.parametrize("acks_late", ["", "yes"])
def test_a_job_that_runs_while_its_connection_drops_is_not_started_again(
    site: Any, tmp_path: Path, eventually: Any, acks_late: str
) -> None:
    truth, gate = tmp_path / "truth", tmp_path / "gate"
    worker = site.start_worker(JOBS_ACKS_LATE=acks_late)
    job_id = site.controller.submit("jobs.wait_for", [str(gate), str(truth)])
    site.wait_for_status(job_id, JobStatus.RUNNING)

    site.redis.client_kill_filter(_type="normal", skipme=True)
    site.redis.client_kill_filter(_type="pubsub", skipme=True)

    eventually(lambda: "Connection to broker lost" in worker.log.read_text(), 20)
    gate.touch()
    assert site.wait_for_end(job_id, 30).status is JobStatus.COMPLETED
    if acks_late:
        eventually(lambda: EventKind.DUPLICATE_DROPPED in site.kinds(job_id), 30)
    after = site.controller.submit("jobs.add", [1, 2])
    assert site.wait_for_end(after, 30).status is JobStatus.COMPLETED
    assert truth.read_text().split() == ["started", "ended"]


def test_a_running_job_and_those_that_wait_survive_a_killed_broker_and_run_once_in_their_order(
    own_site: Any, broker: OwnBroker, tmp_path: Path, eventually: Any
) -> None:
    truth, gate = tmp_path / "truth", tmp_path / "gate"
    own_site.start_worker()
    holder = own_site.controller.submit("jobs.wait_for", [str(gate)])
    own_site.wait_for_status(holder, JobStatus.RUNNING)
    jobs = [own_site.controller.submit("jobs.note", [str(truth), str(number)]) for number in range(50)]

    broker.kill()
    broker.start()
    gate.touch()

    eventually(lambda: all(own_site.status(job) is JobStatus.COMPLETED for job in [holder, *jobs]), 60)
    assert list(map(int, truth.read_text().split())) == list(range(50))


def test_a_cancel_holds_over_a_restart_of_the_broker(
    own_site: Any, broker: OwnBroker, tmp_path: Path, eventually: Any
) -> None:
    """A copy of the message comes back with the broker; the tombstone does too."""
    truth = tmp_path / "truth"
    job_id = own_site.controller.submit("jobs.note", [str(truth), "ran"])
    [key] = [key for key in own_site.redis.keys("celery*") if own_site.redis.type(key) == b"list"]
    copy = own_site.redis.lindex(key, 0)
    own_site.controller.cancel_job(job_id)
    own_site.redis.lpush(key, copy)
    broker.kill()
    broker.start()
    eventually(broker.answers)

    own_site.start_worker()

    eventually(lambda: own_site.redis.llen(key) == 0)
    own_site.wait_for_end(own_site.controller.submit("jobs.add", [1, 1], priority=9))
    assert not truth.exists()


def test_a_node_that_could_not_ask_lately_asks_before_it_starts_a_job(
    own_site: Any, broker: OwnBroker, tmp_path: Path, eventually: Any
) -> None:
    """The deny set changes while the broker is away for the node: what it knows is old when the job comes."""
    truth = tmp_path / "truth"
    own_site.start_worker()
    own_site.wait_for_end(own_site.controller.submit("jobs.add", [1, 1]))
    job_id = "surfaces-later"
    broker.kill()
    broker.start()
    eventually(broker.answers)

    own_site.redis.zadd("jobledger:tombstones", {job_id: 1})
    own_site.controller.submit("jobs.note", [str(truth), "ran"], job_id=job_id)

    assert own_site.wait_for_end(job_id, 30).status is JobStatus.CANCELLED
    assert not truth.exists()
