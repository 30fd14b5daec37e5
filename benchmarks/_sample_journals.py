"""Journals like those that a publisher and a prefork worker write for plain no-op jobs: five events a job.

The publisher writes ``publishing`` (with the sealed message) and ``published``; the worker's main process writes
``handed_over``; one of its two children ``started`` and ``ended``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.ids import new_id
from jobledger.history.job import JobEnd, JobFacts, JobStatus, Snapshot
from jobledger.history.journal import Journal

EVENTS_PER_JOB = 5
_SEGMENT = 64 * 2**20
_CHILDREN = 2
_NODE = "celery@benchmark"
#: As long as Fernet makes it of a message without arguments.
_SNAPSHOT = Snapshot(sealed="g" * 344, digest="1f" * 32, size=184, key_fingerprint="3d256ee15e29")


class SampleJournals:
    """The open journals of one publisher and one worker; ``close`` is the end of both."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._publisher = Journal(directory, new_id(), segment=_SEGMENT)
        boot = new_id()
        self._node = Journal(directory, boot, segment=_SEGMENT)
        self._children = [Journal(directory, boot, segment=_SEGMENT) for _ in range(_CHILDREN)]

    def write_job(self, number: int, published_at: datetime, started_at: datetime) -> str:
        """Write a job's whole life; return its id."""
        job_id = str(uuid.uuid4())
        for event in published(job_id, number, published_at, self._publisher.boot_id):
            self._publisher.append(event)
        handed_over, *rest = ran(job_id, started_at, self._node.boot_id)
        self._node.append(handed_over)
        for event in rest:
            self._children[number % _CHILDREN].append(event)
        return job_id

    def close(self) -> None:
        """Close the journals: their writers are gone."""
        for journal in (self._publisher, self._node, *self._children):
            journal.close()


def write_backlog(directory: Path, jobs: int) -> None:
    """Write the journals of a worker that ran ``jobs`` jobs, a thousand a second, each a moment after its sending."""
    journals = SampleJournals(directory)
    began = now()
    for number in range(jobs):
        moment = began + number * timedelta(milliseconds=1)
        journals.write_job(number, moment, moment + timedelta(milliseconds=2))
    journals.close()


def published(job_id: str, number: int, at: datetime, boot_id: str) -> Iterator[JobEvent]:
    """Yield what a publisher writes."""
    facts = JobFacts(task="bench.noop", queue="celery", priority=5, payload_summary=f"n={number}")
    sending = JobEvent(
        kind=EventKind.PUBLISHING,
        job_id=job_id,
        at=at,
        source="before_task_publish",
        boot_id=boot_id,
        pid=4_711,
        facts=facts,
        snapshot=_SNAPSHOT,
    )
    yield sending
    sent_at = at + timedelta(microseconds=250)
    yield JobEvent(
        kind=EventKind.PUBLISHED, job_id=job_id, at=sent_at, source="after_task_publish", boot_id=boot_id, pid=4_711
    )


def ran(job_id: str, at: datetime, boot_id: str) -> Iterator[JobEvent]:
    """Yield what a node writes, and then its pool."""
    run_id = new_id()
    for kind, source, delay in (
        (EventKind.HANDED_OVER, "node", 0),
        (EventKind.STARTED, "task_prerun", 400),
        (EventKind.ENDED, "task_postrun", 500),
    ):
        moment = at + timedelta(microseconds=delay)
        yield JobEvent(
            kind=kind,
            job_id=job_id,
            at=moment,
            source=source,
            run_id=run_id,
            worker_id=_NODE,
            boot_id=boot_id,
            pid=4_712,
            end=_end(moment, run_id) if kind is EventKind.ENDED else None,
        )


def _end(at: datetime, run_id: str) -> JobEnd:
    return JobEnd(status=JobStatus.COMPLETED, at=at, run_id=run_id, worker_id=_NODE, runtime=0.000112)
