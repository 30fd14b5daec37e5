"""The example of an existing application, run as its owner runs it: by plain ``celery worker``."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jobledger.history.event import EventKind
from jobledger.history.job import JobHistoryEntry, JobStatus

EXAMPLE = Path(__file__).parents[2] / "examples" / "existing_app"
BIN = Path(sys.executable).parent


@pytest.fixture
def environment(site: Any) -> dict[str, str]:
    """A machine whose only settings are where the broker is and where the history goes."""
    own = {"SHOP_BROKER": site.redis_url, "JOBLEDGER_DATA_DIR": str(site.data_dir), "JOBLEDGER_APP": "shop:app"}
    return {**os.environ, **own}


@pytest.fixture
def worker(site: Any, environment: dict[str, str], eventually: Any) -> Iterator[subprocess.Popen[bytes]]:
    log = site.data_dir / "shop.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BIN / "celery", "-A", "shop", "worker", "-c", "1", "-l", "info"],
            cwd=EXAMPLE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        eventually(lambda: " ready" in log.read_text(), 30, log.read_text)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def call(environment: dict[str, str]) -> Callable[..., str]:
    def run(*words: str) -> str:
        result = subprocess.run(words, cwd=EXAMPLE, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def test_the_application_differs_from_a_plain_one_in_the_install_line_only() -> None:
    text = (EXAMPLE / "shop.py").read_text()
    ours = [line for line in text.splitlines() if "jobledger" in line.lower() and not line.startswith('"""')]
    assert ours == ["import jobledger  # new", "jobledger.install(app)  # new"]
    tasks = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.decorator_list]
    assert len(tasks) == 4


@pytest.mark.usefixtures("worker")
def test_four_tasks_leave_their_history(site: Any, call: Callable[..., str], eventually: Any) -> None:
    code = 'from shop import fulfil; fulfil.delay(1001, {"tea": 2, "cake": 1}, "1 Harbour Street")'
    call(str(BIN / "python"), "-c", code)
    call(str(BIN / "python"), "-c", "from shop import price; price.delay({'tea': 1})")

    def all_ended() -> dict[str, JobHistoryEntry]:
        found = {entry.task: entry for entry in site.store.list_jobs() if entry.status.is_terminal}
        return found if len(found) == 4 else {}

    entries = eventually(all_ended, 20)
    assert {entry.status for entry in entries.values()} == {JobStatus.COMPLETED}
    assert entries["shop.ship"].end.result_ref == '"order 1001 is on its way to 1 Harbour Street"'
    assert entries["shop.ship"].facts.priority == 2
    assert entries["shop.price"].end.result_ref == "4.5"
    charge = entries["shop.charge"]
    assert (charge.attempt, charge.retry_error) == (2, "ConnectionError: the bank is busy")
    assert site.kinds(charge.job_id).count(EventKind.STARTED) == 2
    assert site.kinds(charge.job_id)[-1] is EventKind.ENDED


@pytest.mark.usefixtures("worker")
def test_a_failed_job_is_found_explained_and_sent_again_by_the_readmes_commands(
    site: Any, call: Callable[..., str], eventually: Any
) -> None:
    commands = re.findall(r"^(?:python -c .*)$", (EXAMPLE / "README.md").read_text(), re.MULTILINE)
    failing = next(command for command in commands if "1002" in command)
    call("sh", "-c", f'PATH="{BIN}:$PATH"; {failing}')
    [job] = eventually(lambda: site.store.list_jobs(status=JobStatus.FAILED))

    program = str(BIN / "jobledger")
    assert "ValueError: order 1002 has no address" in call(program, "show", job.job_id)
    again = json.loads(call(program, "retry", job.job_id, "--set", 'args.1="2 Harbour Street"', "--json"))["job_id"]

    assert site.wait_for_end(again).end.result_ref == '"order 1002 is on its way to 2 Harbour Street"'
    listed = json.loads(call(program, "jobs", "--json"))["jobs"]
    assert [(entry["status"], entry["retry_of"]) for entry in listed] == [("COMPLETED", job.job_id), ("FAILED", None)]
