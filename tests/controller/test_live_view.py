"""The live view with real workers and a real broker: what is seen, what silence means, and that nobody waits."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from celery import Celery
from jobledger.controller.job_view import LiveSource
from jobledger.controller.live_facts import LiveSnapshot, LiveState
from jobledger.controller.live_view import LiveView
from jobledger.controller.merge import merge, merge_job
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.fold import fold
from jobledger.history.job import JobHistoryEntry, JobStatus
from jobledger.workers.worker_node import NODES_KEY
from redis import Redis
from redis.exceptions import RedisError

APPLICATION = """
import os, time
from celery import Celery

app = Celery("live", broker=os.environ["LIVE_BROKER"])
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=4)
if "JOBLEDGER_DATA_DIR" in os.environ:
    from jobledger import install
    install(app)

@app.task(name="hold")
def hold(path, **_):
    deadline = time.monotonic() + 120
    while os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.02)
"""
#: A caller that does not wait gets its answer within this many seconds.
AT_ONCE = 0.05


class Worker:
    """A real worker process of the application."""

    def __init__(self, folder: Path, broker: str, name: str = "a@test", pool: str = "prefork", **env: str) -> None:
        (folder / "live_app.py").write_text(APPLICATION)
        self.name = name
        command = ["-A", "live_app", "worker", "-P", pool, "-c", "1", "-n", name, "--without-mingle"]
        self._log = (folder / f"{name}.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "celery", *command, "--without-gossip", "-l", "WARNING"],
            cwd=folder,
            env={**os.environ, "LIVE_BROKER": broker, **env},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def kill(self) -> None:
        """Let it vanish with its children, without a word."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._log.close()

    def stop(self) -> None:
        """Ask it to stop."""
        self.process.terminate()
        self.process.wait(20)


class Site:
    """A broker database of its own, workers on it, and a view of both."""

    def __init__(self, broker: str, folder: Path) -> None:
        self.broker = broker
        self.folder = folder
        self.app = Celery("watcher", broker=broker)
        self.view = LiveView(self.app)
        self.workers: list[Worker] = []
        self.held = folder / "held"
        self.held.touch()

    def worker(self, name: str = "a@test", **options: str) -> Worker:
        worker = Worker(self.folder, self.broker, name, **options)
        self.workers.append(worker)
        return worker

    def hold(self, **options: Any) -> str:
        """Send a job that runs until the test ends, and return its id."""
        sent = self.app.send_task("hold", (str(self.held),), {"secret": "a-secret-argument"}, priority=6, **options)
        return str(sent.id)

    def look(self) -> LiveSnapshot:
        snapshot = self.view.look()
        return snapshot if snapshot is not None else LiveSnapshot(taken_at=0)

    def close(self) -> None:
        self.view.close()
        self.held.unlink()
        for worker in self.workers:
            worker.kill()
        self.app.close()


@pytest.fixture
def site(redis_url: str, data_dir: Path) -> Iterator[Site]:
    url = redis_url.removesuffix("/0") + "/9"
    site = Site(url, data_dir)
    yield site
    site.close()
    with Redis.from_url(url) as client:
        client.flushdb()


class OwnBroker:
    """A server that a test may stop, freeze and kill."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self.start()

    def start(self) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)("no redis-server and no valkey-server here")
        self.process = subprocess.Popen(
            [program, "--port", str(self.port), "--dir", str(self._folder), "--save", "", "--logfile", "server.log"],
            stdin=subprocess.DEVNULL,
        )
        self._wait_until_it_listens()

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + 10
        with Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                    return
                except RedisError:
                    assert time.monotonic() < deadline, "the server does not listen"
                    threading.Event().wait(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)


@pytest.fixture
def own_broker(data_dir: Path) -> Iterator[OwnBroker]:
    broker = OwnBroker(data_dir)
    yield broker
    broker.kill()


@pytest.fixture
def own_site(own_broker: OwnBroker, data_dir: Path) -> Iterator[Site]:
    site = Site(own_broker.url, data_dir)
    yield site
    site.close()


def running(job_id: str, node: str) -> JobHistoryEntry:
    return fold(None, JobEvent(kind=EventKind.STARTED, job_id=job_id, at=now(), worker_id=node, run_id="run"))


def longest_look(view: LiveView, until: Callable[[], object], timeout: float = 20) -> float:
    """Look again and again until the condition holds; return how long the slowest look took."""
    longest, deadline = 0.0, time.monotonic() + timeout
    while not until():
        assert time.monotonic() < deadline, "the condition did not become true"
        started = time.monotonic()
        view.look()
        longest = max(longest, time.monotonic() - started)
        threading.Event().wait(0.005)
    return longest


# -- what is seen


def test_jobs_that_run_wait_for_a_slot_and_wait_for_their_time_are_seen(site: Site, eventually: Any) -> None:
    site.worker()
    expected = {
        site.hold(): LiveState.ACTIVE,
        site.hold(): LiveState.RESERVED,
        site.hold(countdown=600): LiveState.SCHEDULED,
    }

    def states() -> dict[str, LiveState]:
        return {job_id: facts[0].state for job_id, facts in site.look().facts.items()}

    eventually(lambda: states() == expected, 30, message=lambda: f"{states()} {expected}")
    snapshot = site.look()
    active, reserved, scheduled = (snapshot.facts[job_id][0] for job_id in expected)
    assert {fact.node for fact in (active, reserved, scheduled)} == {"a@test"}
    assert {fact.task for fact in (active, reserved, scheduled)} == {"hold"}
    assert (active.queue, active.priority) == ("celery", 6)
    assert active.started_at is not None
    assert abs((now() - active.started_at).total_seconds()) < 60
    assert scheduled.due_at is not None
    assert 500 < (scheduled.due_at - now()).total_seconds() <= 600
    assert snapshot.nodes["a@test"].queues == ("celery",)
    assert snapshot.answering(time.monotonic()) == ["a@test"]


def test_no_argument_of_a_job_is_kept(site: Site, eventually: Any) -> None:
    site.worker()
    ids = {site.hold(), site.hold(), site.hold(countdown=600)}
    eventually(lambda: site.look().facts.keys() == ids, 30)
    written = msgspec.json.encode(site.look()).decode()
    assert "a-secret-argument" not in written
    assert str(site.held) not in written


def test_facts_stay_fresh_while_somebody_looks(site: Site, eventually: Any) -> None:
    site.worker()
    job_id = site.hold()
    eventually(lambda: site.look().facts.get(job_id), 30)
    first = site.look().facts[job_id][0].at
    eventually(lambda: site.look().facts[job_id][0].at > first + 2, 10)
    assert (site.look().oldest_age(time.monotonic()) or 0) < 2.5


def test_waiting_messages_are_counted_by_queue_and_priority(site: Site, eventually: Any) -> None:
    site.app.conf.broker_transport_options = {"priority_steps": list(range(10))}
    site.app.conf.task_create_missing_queues = True
    view = LiveView(site.app, queues=["pictures"])
    for priority in (2, 2, 8):
        site.app.send_task("hold", queue="pictures", priority=priority)
    depths = eventually(lambda: (snapshot := view.look()) and snapshot.depths)
    view.close()
    assert {level: count for level, count in depths["pictures"].items() if count} == {2: 2, 8: 1}
    assert set(depths["celery"]) == set(range(10))


def test_a_worker_with_jobledger_is_known_by_its_registration_and_forgotten_at_its_goodbye(
    site: Site, eventually: Any
) -> None:
    worker = site.worker("b@test", JOBLEDGER_DATA_DIR=str(site.folder / "data"))
    node = eventually(lambda: (answer := site.look().nodes.get("b@test")) and answer.boot_id and answer, 30)
    with Redis.from_url(site.broker) as client:
        assert msgspec.json.decode(client.hget(NODES_KEY, "b@test"))["boot_id"] == node.boot_id
    eventually(lambda: site.look().answering(time.monotonic()) == ["b@test"])
    worker.stop()
    eventually(lambda: site.look().nodes == {})


def test_two_workers_of_one_name_break_nothing_and_are_named(site: Site, eventually: Any) -> None:
    site.worker()
    eventually(lambda: site.look().nodes, 30)
    first = site.hold()
    eventually(lambda: site.look().facts.keys() == {first})
    other = site.folder / "other"
    other.mkdir()
    site.workers.append(Worker(other, site.broker))
    eventually(lambda: site.look().duplicated() == ["a@test"], 30)
    ids = {first, site.hold(), site.hold()}
    eventually(lambda: {job_id for job_id, facts in site.look().facts.items() if facts[0].state == "active"} & ids)
    views = merge([running(first, "a@test")], site.look())
    assert sorted(view.job_id for view in views) == sorted(site.look().facts)
    assert next(view for view in views if view.job_id == first).live_note == (
        "2 workers answer as a@test; give each its own name (-n)"
    )


# -- silence


def test_a_killed_worker_becomes_silent_and_its_job_stale_not_idle(site: Site, eventually: Any) -> None:
    worker = site.worker()
    job_id = site.hold()
    eventually(lambda: site.look().facts.get(job_id), 30)
    entry = running(job_id, "a@test")
    assert merge_job(entry, site.look()).live_source is LiveSource.WORKER
    worker.kill()
    eventually(lambda: site.look().silent(time.monotonic()) == ["a@test"], 15)
    view = merge_job(entry, site.look())
    assert (view.status, view.live_source, view.worker_id) == (JobStatus.RUNNING, LiveSource.STALE, "a@test")
    assert view.live_note is not None
    assert "has not answered" in view.live_note


def test_a_silent_node_does_not_delay_what_the_others_say(site: Site, eventually: Any) -> None:
    site.worker("b@test")
    with Redis.from_url(site.broker) as client:
        client.hset(NODES_KEY, "gone@test", b'{"boot_id": "boot"}')
    job_id = site.hold()
    eventually(lambda: site.look().facts.get(job_id), 30)
    assert site.look().silent(time.monotonic()) == ["gone@test"]
    ages = []
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        ages.append(site.look().nodes["b@test"].age(time.monotonic()) or 0.0)
        threading.Event().wait(0.01)
    assert max(ages) < 2


def test_a_solo_worker_that_is_busy_is_silent_and_comes_back(site: Site, eventually: Any) -> None:
    site.worker("solo@test", pool="solo")
    eventually(lambda: site.look().answering(time.monotonic()) == ["solo@test"], 30)
    job_id = site.hold()
    eventually(lambda: site.look().silent(time.monotonic()) == ["solo@test"], 15)
    assert merge_job(running(job_id, "solo@test"), site.look()).live_source is LiveSource.STALE
    site.held.rename(site.folder / "let go")
    eventually(lambda: site.look().answering(time.monotonic()) == ["solo@test"], 15)
    site.held.touch()


# -- the broker


def test_a_broker_that_is_gone_makes_everything_unknown_and_blocks_nobody(
    own_site: Site, own_broker: OwnBroker, eventually: Any
) -> None:
    own_site.worker()
    job_id = own_site.hold()
    eventually(lambda: own_site.look().facts.get(job_id), 30)
    own_broker.kill()
    longest = longest_look(own_site.view, lambda: own_site.look().unknown_since)
    assert longest < AT_ONCE
    snapshot = own_site.look()
    assert snapshot.depths is None
    assert snapshot.problem is not None
    assert "does not answer" in snapshot.problem
    eventually(lambda: own_site.look().silent(time.monotonic()) == ["a@test"])
    view = merge_job(running(job_id, "a@test"), own_site.look())
    assert (view.status, view.live_source) == (JobStatus.RUNNING, LiveSource.STALE)
    assert view.live_note is not None
    assert view.live_note.startswith("the broker has not answered for")


def test_a_broker_that_comes_back_is_seen_again(own_site: Site, own_broker: OwnBroker, eventually: Any) -> None:
    eventually(lambda: own_site.look().depths is not None)
    own_broker.kill()
    eventually(lambda: own_site.look().unknown_since, 15)
    own_broker.start()
    eventually(lambda: own_site.look().depths is not None, 20)
    assert own_site.look().unknown_since is None
    assert own_site.look().problem is None


def test_a_broker_that_swallows_everything_blocks_nobody(
    own_site: Site, own_broker: OwnBroker, eventually: Any
) -> None:
    eventually(lambda: own_site.look().depths is not None)
    own_broker.freeze()
    assert longest_look(own_site.view, lambda: own_site.look().unknown_since) < AT_ONCE
    started = time.monotonic()
    own_site.view.close()
    assert time.monotonic() - started < 3.5


def test_connections_that_were_cut_between_two_rounds_are_no_failure(
    own_site: Site, own_broker: OwnBroker, eventually: Any
) -> None:
    problems = set()

    def refreshed_after(moment: float) -> bool:
        snapshot = own_site.look()
        problems.add(snapshot.problem)
        return (snapshot.depths_at or 0.0) > moment

    eventually(lambda: refreshed_after(0))
    client = Redis.from_url(own_broker.url)
    client.client_kill_filter(skipme=True)
    client.close()
    cut_at = time.monotonic()
    eventually(lambda: refreshed_after(cut_at + 0.5), 10)
    assert problems == {None}


# -- who looks


def test_nothing_is_started_before_the_first_look(site: Site) -> None:
    assert not site.view.is_polling
    site.view.look()
    assert site.view.is_polling


def test_a_look_never_waits(site: Site, eventually: Any) -> None:
    started = time.monotonic()
    assert site.view.look() is None
    assert time.monotonic() - started < AT_ONCE
    eventually(site.view.look)


def test_a_one_shot_caller_gets_what_the_workers_say_now(site: Site, eventually: Any) -> None:
    site.worker()
    job_id = site.hold()
    eventually(lambda: site.look().facts.get(job_id), 30)
    view = LiveView(site.app)
    started = time.monotonic()
    snapshot = view.look(wait=0.3)
    took = time.monotonic() - started
    view.close()
    assert took < 0.3 + AT_ONCE
    assert snapshot is not None
    assert snapshot.facts.keys() == {job_id}


def test_a_one_shot_caller_waits_300_ms_at_most(data_dir: Path) -> None:
    with socket.socket() as black_hole:
        black_hole.bind(("127.0.0.1", 0))
        black_hole.listen()
        view = LiveView(Celery("watcher", broker=f"redis://127.0.0.1:{black_hole.getsockname()[1]}/0"))
        started = time.monotonic()
        assert view.look(wait=30) is None
        assert 0.25 < time.monotonic() - started < 0.3 + AT_ONCE
        view.close()


def test_the_poller_stops_when_nobody_looks_and_starts_again(site: Site, eventually: Any) -> None:
    view = LiveView(site.app, idle_after=0.5)
    eventually(view.look)
    eventually(lambda: view_threads() == 0, 5)
    assert not view.is_polling
    assert view.look() is None
    eventually(view.look)
    view.close()


def test_a_stopped_poller_leaves_nothing_in_the_broker(site: Site, eventually: Any) -> None:
    view = LiveView(site.app, idle_after=0.5)
    eventually(view.look)
    eventually(lambda: view_threads() == 0, 5)
    with Redis.from_url(site.broker) as client:
        assert [key for key in client.keys("*") if b"reply" in key] == []


def view_threads() -> int:
    return sum(thread.name == "jobledger-live-view" for thread in threading.enumerate())


def test_a_closed_view_stays_closed(site: Site, eventually: Any) -> None:
    eventually(site.view.look)
    site.view.close()
    assert site.view.look(wait=0.3) is None
    assert not site.view.is_polling
    assert view_threads() == 0


def test_many_callers_share_one_poller(site: Site) -> None:
    threads = [threading.Thread(target=site.view.look, args=(0.3,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert view_threads() == 1
