"""Processes that share a host: several workers, and a web server that forks after it has loaded the application."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobledger.history.agent_link import ask_agent
from jobledger.history.job import JobStatus

#: A server with a preloading master: it has published before it forks, and its workers publish too.
SERVER = """
import json, os, sys, time
import jobs
from jobledger.workers.installation import installation_of
app = jobs.app
mine = [jobs.app.send_task("jobs.add", [0, 0]).id]
readers = []
for worker in range(4):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        ids = [jobs.app.send_task("jobs.add", [worker, number]).id for number in range(25)]
        os.write(writer, json.dumps(ids).encode())
        os.close(writer)
        if worker == 3:
            os.kill(os.getpid(), 9)
        sys.exit(0)
    os.close(writer)
    readers.append(reader)
for reader in readers:
    with os.fdopen(reader) as pipe:
        mine += json.load(pipe)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
mine.append(jobs.app.send_task("jobs.add", [0, 0]).id)
print(json.dumps([installation_of(app).recorder.boot_id, mine]))
"""


def test_a_server_that_forks_after_loading_records_every_job_of_every_worker(
    site: Any, eventually: Any, tmp_path: Path
) -> None:
    _, jobs = json.loads(site.run_python(SERVER))
    assert len(jobs) == 102
    eventually(lambda: len(site.store.get_jobs(jobs)) == 102, 20)
    assert {entry.status for entry in site.store.get_jobs(jobs).values()} == {JobStatus.QUEUED}
    published = [site.store.get_job_events(job) for job in jobs]
    assert {len(events) for events in published} == {2}
    assert len({recorded.event.pid for events in published for recorded in events}) == 5
    assert len({recorded.event.boot_id for events in published for recorded in events}) == 5
    assert site.store.recording_gaps() == []


def test_several_workers_and_a_server_have_one_agent(site: Any, eventually: Any) -> None:
    for _ in range(2):
        site.start_worker()
    _, jobs = json.loads(site.run_python(SERVER))
    eventually(lambda: all(site.status(job) is JobStatus.COMPLETED for job in jobs), 60)
    status = ask_agent(site.settings, "status")
    assert status is not None
    assert len(status["nodes"]) == 2


def test_a_publisher_that_cannot_write_anywhere_does_not_wait_at_its_end(site: Any, data_dir: Path) -> None:
    (data_dir / "file").touch()
    code = """
import time, jobs
jobs.app.send_task("jobs.add", [1, 1])
import atexit
began = time.monotonic()
atexit._run_exitfuncs()
print(time.monotonic() - began)
"""
    printed = site.run_python(code, JOBLEDGER_DATA_DIR=str(data_dir / "file" / "data"))
    assert float(printed.split()[-1]) < 3
