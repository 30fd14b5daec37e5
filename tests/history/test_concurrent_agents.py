"""Several agents that write at once to one PostgreSQL ledger, about the same jobs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from jobledger.history.job import JobStatus
from jobledger.history.sql_store import SqlJobHistoryStore
from sqlalchemy import text

from .recount import differences

_AGENTS = 4
_JOBS = 600
#: Each agent sees one part of every job's life, in an order of its own, and some of it twice.
_AGENT = """
import random, sys
from datetime import timedelta
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.job import JobEnd, JobFacts, JobStatus, Snapshot
from jobledger.history.job_history_store import JournalOffset
from jobledger.history.sql_store import SqlJobHistoryStore

url, number, jobs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
run = {"run_id": "run", "worker_id": f"node-{number}", "boot_id": "boot"}

def seen(job):
    job_id, at = f"job-{job:04}", now()
    if number == 0:
        facts = JobFacts(task=f"tasks.{job % 3}", queue="main", tags=("a", f"tag-{job % 5}"))
        snapshot = Snapshot(sealed="sealed", digest="digest", size=1, key_fingerprint="key")
        return JobEvent(kind=EventKind.PUBLISHING, job_id=job_id, at=at, facts=facts, snapshot=snapshot)
    if number == 1:
        return JobEvent(kind=EventKind.HANDED_OVER, job_id=job_id, at=at, **run)
    if number == 2:
        return JobEvent(kind=EventKind.STARTED, job_id=job_id, at=at, **run)
    status = JobStatus.FAILED if job % 4 == 0 else JobStatus.COMPLETED
    end = JobEnd(status=status, at=at, error_type="E" if job % 4 == 0 else None, runtime=0.1)
    return JobEvent(kind=EventKind.ENDED, job_id=job_id, at=at, end=end)

order = random.Random(number)
events = [seen(job) for job in range(jobs)]
events += order.sample(events, jobs // 4)
order.shuffle(events)
store = SqlJobHistoryStore.open(url)
print("ready", flush=True)
sys.stdin.readline()
place = 0
while events:
    batch, events = events[:40], events[40:]
    moves = [JournalOffset(journal=f"{name}-{number}", start=place, end=place + 1) for name in ("a", "b")]
    assert store.append(batch, moves)
    place += 1
store.close()
"""


def test_four_agents_that_write_about_the_same_jobs_at_once_never_deadlock_and_the_sums_are_right(
    postgresql_url: str, open_store: Callable[[str], SqlJobHistoryStore]
) -> None:
    store = open_store(postgresql_url)
    agents = [_start(postgresql_url, number) for number in range(_AGENTS)]
    for agent in agents:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "ready\n"
    for agent in agents:
        _go(agent)
    assert [agent.wait(120) for agent in agents] == [0] * _AGENTS
    _release(agents)

    counts = store.counts().statuses
    assert counts[JobStatus.FAILED] == _JOBS // 4
    assert counts[JobStatus.COMPLETED] == _JOBS - _JOBS // 4
    assert differences(store) == []
    assert _number(store, "SELECT count(*) FROM job_events") == _AGENTS * (_JOBS + _JOBS // 4)
    assert _number(store, "SELECT count(*) FROM job_snapshots") == _JOBS
    assert _number(store, "SELECT count(*) FROM job_labels") == 2 * _JOBS
    assert _number(store, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


def _start(url: str, number: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _AGENT, url, str(number), str(_JOBS)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _go(agent: subprocess.Popen[str]) -> None:
    assert agent.stdin is not None
    agent.stdin.write("go\n")
    agent.stdin.flush()


def _release(agents: list[subprocess.Popen[str]]) -> None:
    for agent in agents:
        for pipe in (agent.stdin, agent.stdout):
            assert pipe is not None
            pipe.close()


def _number(store: SqlJobHistoryStore, question: str) -> int:
    with store._database.reading() as connection:
        return int(connection.scalar(text(question)))
