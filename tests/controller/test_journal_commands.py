"""The journal commands: what waits, what could not be read, and trying it again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jobledger.history.agent_link import AgentLink
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.ids import new_id
from jobledger.history.journal import Journal

PROGRAM = Path(sys.executable).with_name("jobledger")


def run(site: Any, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``jobledger journal`` for a site."""
    command = [str(PROGRAM), "journal", *arguments]
    settings = site.environment_with(**environment)
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)


def line(job_id: str, **fields: Any) -> bytes:
    return msgspec.json.encode(JobEvent(kind=EventKind.STARTED, job_id=job_id, at=now(), **fields)) + b"\n"


class TestStatus:
    def test_tells_the_backlog_of_each_journal_and_that_no_agent_runs(self, site: Any) -> None:
        site.store.check()
        site.settings.journal_dir.mkdir(parents=True)
        (site.settings.journal_dir / "boot.file.jsonl").write_bytes(b"x" * 1_234)
        result = run(site, "status")
        assert result.returncode == 0
        assert "Agent:     does not run" in result.stdout
        assert "1 files, 1,234 bytes wait" in result.stdout
        assert ["boot", "file", "1,234", "1,234"] in [row.split() for row in result.stdout.splitlines()]

    def test_tells_who_the_agent_is(self, site: Any) -> None:
        boot = new_id()
        journal = Journal(site.settings.journal_dir, boot, segment=2**20)
        journal.append(JobEvent(kind=EventKind.STARTED, job_id="1", at=now()))
        link = AgentLink(site.settings, boot)
        link.start()
        assert link.flush(20)
        status = json.loads(run(site, "status", "--json").stdout)
        link.close()
        journal.close()
        assert (status["agent"], status["trouble"]) == ("records", None)
        assert status["agent_pid"] > 0
        assert [found["waiting"] for found in status["journals"]] == [0]

    def test_says_what_it_can_while_the_ledger_is_away(self, site: Any) -> None:
        site.settings.journal_dir.mkdir(parents=True)
        (site.settings.journal_dir / "boot.file.jsonl").write_bytes(b"x" * 1_234)
        away = "postgresql+psycopg://nobody:hunter2@127.0.0.1:1/none"
        result = run(site, "status", JOBLEDGER_HISTORY_URL=away)
        assert "what waits cannot be said" in result.stdout
        assert "Gaps:      cannot be said" in result.stdout
        assert "does not answer" in result.stdout
        assert "hunter2" not in result.stdout + result.stderr

    def test_tells_the_gaps(self, site: Any) -> None:
        site.store.record_poison("boot.file", 10, b"{", "not JSON")
        result = run(site, "status")
        assert "0 events were not written (full disk), 1 lines could not be read" in result.stdout
        assert "boot.file: 0 not written, 1 not read" in result.stdout


class TestReplay:
    def test_records_what_it_can_and_leaves_the_rest(self, site: Any) -> None:
        site.store.record_poison("boot.file", 0, line("good"), "an older version could not read it")
        site.store.record_poison("boot.file", 99, b"garbage\n", "why")
        dry = run(site, "replay", "--dry-run")
        assert dry.stdout.splitlines()[0] == "boot.file:0: can be recorded"
        assert "1 lines would be recorded, 1 still cannot be read." in dry.stdout
        assert site.store.get_job("good") is None
        result = run(site, "replay", "--json")
        assert result.returncode == 1
        outcomes = [json.loads(text) for text in result.stdout.splitlines()]
        assert [(outcome["id"], outcome["recorded"]) for outcome in outcomes] == [
            ("boot.file:0", True),
            ("boot.file:99", False),
        ]
        assert site.store.get_job("good") is not None
        assert [str(found.place) for found in site.store.list_poison()] == ["boot.file:99"]

    def test_of_nothing_is_well(self, site: Any) -> None:
        site.store.check()
        result = run(site, "replay")
        assert (result.returncode, result.stdout) == (0, "0 lines were recorded, 0 still cannot be read.\n")


class TestShow:
    @pytest.mark.parametrize(
        "kept", [b'{"kind":"started","password":"hunter2"}\n', b'torn {"url": "redis://:hunter2@queue/0', b"\xff\xfe"]
    )
    def test_prints_a_line_without_its_secrets(self, site: Any, kept: bytes) -> None:
        site.store.record_poison("boot.file", 10, kept, "not JSON")
        result = run(site, "show", "boot.file:10")
        assert result.returncode == 0
        assert "Reason: not JSON" in result.stdout
        assert "hunter2" not in result.stdout
        assert json.loads(run(site, "show", "boot.file:10", "--json").stdout)["size"] == len(kept)

    def test_knows_no_other_line(self, site: Any) -> None:
        site.store.check()
        missing = run(site, "show", "boot.file:11")
        assert (missing.returncode, missing.stdout) == (3, "")
        assert "journal replay --dry-run" in missing.stderr
        assert run(site, "show", "nonsense").returncode == 2
