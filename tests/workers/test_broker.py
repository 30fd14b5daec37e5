"""Jobledger's own connections to the broker."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jobledger.history.job import JobStatus


def test_jobs_are_submitted_and_cancelled_from_many_threads_at_once(site: Any, tmp_path: Path) -> None:
    """As a server does it: every cancel asks the nodes, and none may take another one's answers."""
    site.start_worker(concurrency=6)
    barrier = threading.Barrier(6)

    def cancel_running_job() -> str:
        job_id: str = site.controller.submit("jobs.polite", [60])
        site.wait_for_status(job_id, JobStatus.RUNNING)
        barrier.wait(30)
        outcome = site.controller.cancel_job(job_id)
        assert outcome.is_proven or "was told to stop" in outcome.waiting_for
        return job_id

    _ = site.controller, site.store
    with ThreadPoolExecutor(6) as threads:
        cancels = [threads.submit(cancel_running_job) for _ in range(6)]

    assert [site.wait_for_end(cancel.result()).status for cancel in cancels] == [JobStatus.CANCELLED] * 6
