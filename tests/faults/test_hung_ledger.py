"""A ledger that takes connections and never answers: it must keep no worker from starting, working or stopping."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from jobledger.history.job import JobStatus


def test_a_worker_starts_works_and_stops_while_the_ledger_hangs(
    make_site: Any, data_dir: Path, hanging_url: str, proxy: Any, eventually: Any
) -> None:
    site = make_site(data_dir, hanging_url)
    first = site.controller.submit("jobs.add", [1, 1])
    proxy.block()
    marks = data_dir / "marks"
    code = f"import jobs; print(jobs.app.send_task('jobs.note', [{str(marks)!r}, 'ran']).id)"
    began = time.monotonic()
    worker = site.start_worker()
    late = site.run_python(code).strip()
    eventually(marks.exists, 20, "the job did not run")
    worker.stop(60)
    assert time.monotonic() - began < 45
    proxy.unblock()
    site.start_worker()
    for job in (first, late):
        eventually(lambda job=job: site.status(job) is JobStatus.COMPLETED, 60)
