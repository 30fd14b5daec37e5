"""Finding and removing messages: what counts is the parsed header, never an id that stands elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from fakeredis import TcpFakeServer
from jobledger.controller.broker_queues import BrokerQueues
from jobledger.workers.broker import Broker
from jobledger.workers.priorities import PRIORITY_STEPS
from jobledger.workers.tombstones import Tombstones


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def app(server: int) -> Iterator[Celery]:
    app = Celery(broker=f"redis://127.0.0.1:{server}/0", set_as_current=False)
    app.conf.broker_transport_options = {"priority_steps": PRIORITY_STEPS}
    yield app
    app.close()


@pytest.fixture
def broker(app: Celery) -> Iterator[Broker]:
    broker = Broker(app, timeout=10)
    broker.ask(lambda client: client.flushdb())
    yield broker
    broker.close()


@pytest.fixture
def queues(broker: Broker) -> BrokerQueues:
    return BrokerQueues(broker)


def send(app: Celery, job_id: str, *args: Any, **options: Any) -> None:
    with app.connection_for_write() as connection:
        app.send_task("tasks.any", args, task_id=job_id, connection=connection, **{"priority": 5, **options})


def test_the_copies_of_several_jobs_are_found_in_one_pass_over_all_levels(app: Celery, queues: BrokerQueues) -> None:
    send(app, "first", priority=0)
    send(app, "second", priority=9)
    send(app, "second", priority=2)
    send(app, "other")

    found = queues.find(["first", "second"], ["celery"])

    assert sorted(copy.job_id for copy in found) == ["first", "second", "second"]
    assert all(copy.is_untouched for copy in found)


def test_an_id_in_the_arguments_or_a_chain_of_another_job_is_no_copy(app: Celery, queues: BrokerQueues) -> None:
    send(app, "carrier", {"id": "wanted"}, '"id": "wanted"', headers={"note": '"id": "wanted"', "id2": "wanted"})
    send(app, "child", root_id="wanted", parent_id="wanted")

    assert queues.find(["wanted"], ["celery"]) == []
    assert queues.remove(["wanted"], ["celery"]) == []
    assert queues.depths(["celery"]) == {"celery": {5: 2}}


def test_removal_takes_every_copy_and_nothing_else(app: Celery, broker: Broker, queues: BrokerQueues) -> None:
    """More messages than one call of the script looks at."""
    send(app, "job-0")
    first = broker.ask(lambda client: client.lpop(broker.priority_key("celery", 5)))
    messages = [first.replace(b'"job-0"', f'"job-{number % 400}"'.encode()) for number in range(1_200)]
    broker.ask(lambda client: client.lpush(broker.priority_key("celery", 5), *messages))

    removed = queues.remove([f"job-{number}" for number in range(100)], ["celery"])

    assert len(removed) == 300
    assert queues.depths(["celery"]) == {"celery": {5: 900}}
    assert queues.find([f"job-{number}" for number in range(100)], ["celery"]) == []


def test_a_retried_or_redelivered_copy_is_not_untouched(app: Celery, broker: Broker, queues: BrokerQueues) -> None:
    send(app, "retried", retries=2)
    send(app, "returned")
    with app.connection_for_write() as connection, connection.channel() as channel:
        for message in [channel.basic_get("celery") for _ in range(2)]:
            message.requeue()

    copies = {copy.job_id: copy for copy in queues.find(["retried", "returned"], ["celery"])}

    assert copies["retried"].retries == 2
    assert copies["returned"].redelivered
    assert not any(copy.is_untouched for copy in copies.values())


def test_only_new_tombstones_are_asked_for_and_old_ones_go(broker: Broker) -> None:
    tombstones = Tombstones(broker)
    tombstones.add(["first", "second"])
    ids, newest = tombstones.since(0)
    assert sorted(ids) == ["first", "second"]

    tombstones.add(["third", "first"])
    later, _ = tombstones.since(newest + 1)

    assert later == ["third"]
    assert tombstones.holds("first")
    assert not tombstones.holds("fourth")
    broker.ask(lambda client: client.zadd(broker.key("jobledger:tombstones"), {"ancient": 1}))
    assert tombstones.prune(7 * 86_400) == 1
    assert tombstones.count() == 3
