"""Export: every format gives back what was put in, without secrets, in constant memory, and no file is ever half."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from jobledger.errors import ExportFailed
from jobledger.history.event import EventKind, JobEvent
from jobledger.history.export import export_jobs, new_file
from jobledger.history.export_format import ExportFormat
from jobledger.history.exported_job import COLUMNS, ColumnKind
from jobledger.history.job import FailureKind, JobEnd, JobFacts, JobStatus
from jobledger.history.job_history_store import JobFilter, JobHistoryStore
from jobledger.history.memory_store import MemoryJobHistoryStore
from jobledger.history.schema import jobs
from jobledger.history.sql_store import SqlJobHistoryStore
from sqlalchemy import create_engine, insert, literal, select, true

DAWN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
FORMATS = list(ExportFormat)
EVERYTHING = JobFilter()


def later(seconds: float) -> datetime:
    return DAWN + timedelta(seconds=seconds)


def facts(**more: Any) -> JobFacts:
    return JobFacts(**{"task": "tasks.render", "queue": "gpu"} | more)


def submitted(job_id: str, seconds: float = 0, **more: Any) -> JobEvent:
    return JobEvent(kind=EventKind.SUBMITTED, job_id=job_id, at=later(seconds), facts=facts(**more))


def ended(job_id: str, **more: Any) -> JobEvent:
    values: dict[str, Any] = {"status": JobStatus.FAILED, "at": later(9), "worker_id": "celery@gpu"} | more
    end = JobEnd(**values)
    return JobEvent(kind=EventKind.ENDED, job_id=job_id, at=end.at, end=end)


def exported_bytes(
    store: JobHistoryStore, export_format: ExportFormat, job_filter: JobFilter = EVERYTHING, *, events: bool = False
) -> bytes:
    stream = io.BytesIO()
    written = export_jobs(store, job_filter, stream, export_format, events=events)
    assert written == len(read(stream.getvalue(), export_format))
    return stream.getvalue()


def read(data: bytes, export_format: ExportFormat) -> list[dict[str, Any]]:
    """Return the records as somebody would read them who knows the columns and nothing of how they were written."""
    match export_format:
        case ExportFormat.JSONL:
            return [json.loads(line) for line in data.decode().splitlines()]
        case ExportFormat.CSV:
            return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
        case ExportFormat.PARQUET:
            import pyarrow.parquet

            rows: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
            return rows


def typed(record: dict[str, Any], export_format: ExportFormat) -> dict[str, Any]:
    """Return a record in Python's types again."""
    return {column.name: _typed(record[column.name], column.kind, export_format) for column in COLUMNS}


def _typed(value: Any, kind: ColumnKind, export_format: ExportFormat) -> Any:
    if export_format is ExportFormat.CSV:
        value = value.removeprefix("'") or None
    match kind:
        case _ if value is None:
            return None
        case ColumnKind.TIME:
            return value if isinstance(value, datetime) else datetime.fromisoformat(value)
        case ColumnKind.JSON if export_format is not ExportFormat.JSONL:
            return json.loads(value)
        case ColumnKind.INTEGER:
            return int(value)
        case ColumnKind.NUMBER:
            return float(value)
        case ColumnKind.BOOLEAN:
            return value in (True, "true")
    return value


@pytest.fixture
def memory() -> MemoryJobHistoryStore:
    return MemoryJobHistoryStore()


@pytest.mark.parametrize("export_format", FORMATS)
class TestEveryFormat:
    def test_every_field_comes_back_as_it_was(self, store: JobHistoryStore, export_format: ExportFormat) -> None:
        started = JobEvent(kind=EventKind.STARTED, job_id="job", at=later(5), worker_id="celery@gpu", run_id="r")
        job = submitted(
            "job",
            priority=-3,
            payload_summary='a "lighthouse", größer\nthan big',
            tags=("night", "große Serie"),
            metadata=(("customer", "acme"),),
            group_id="group",
            retry_of="older",
            root_id="oldest",
            overrides='{"kwargs":{"steps":30}}',
        )
        end = ended(
            "job",
            run_id="r",
            failure_kind=FailureKind.EXCEPTION,
            error_type="ValueError",
            error_message="boom",
            traceback="Traceback …",
            result_ref='{"images":[1,2]}',
            runtime=0.1 + 0.2,
            detail="its function raised",
        )
        store.append([job, started, end])

        [record] = read(exported_bytes(store, export_format), export_format)

        assert list(record) == [column.name for column in COLUMNS]
        assert typed(record, export_format) == {
            "job_id": "job",
            "status": "FAILED",
            "task": "tasks.render",
            "queue": "gpu",
            "priority": -3,
            "created_at": DAWN,
            "started_at": later(5),
            "completed_at": later(9),
            "runtime": 0.1 + 0.2,
            "attempt": 1,
            "worker_id": "celery@gpu",
            "payload_summary": 'a "lighthouse", größer\nthan big',
            "tags": ["night", "große Serie"],
            "metadata": {"customer": "acme"},
            "group_id": "group",
            "retry_of": "older",
            "root_id": "oldest",
            "overrides": {"kwargs": {"steps": 30}},
            "failure_kind": "exception",
            "error_type": "ValueError",
            "last_error": "boom",
            "traceback": "Traceback …",
            "failure_group": record["failure_group"],
            "end_detail": "its function raised",
            "end_provisional": False,
            "result_ref": {"images": [1, 2]},
            "next_attempt_at": None,
            "cancel_requested_at": None,
            "cancel_actor": None,
            "cancel_reason": None,
        }
        assert record["failure_group"]

    def test_a_job_of_which_little_is_known_has_empty_fields(
        self, memory: MemoryJobHistoryStore, export_format: ExportFormat
    ) -> None:
        memory.append([JobEvent(kind=EventKind.PUBLISHED, job_id="job", at=DAWN)])
        [record] = read(exported_bytes(memory, export_format), export_format)
        known = {name for name, value in typed(record, export_format).items() if value not in (None, "", [], {})}
        assert known == {"job_id", "status", "created_at", "attempt"}

    def test_no_job_is_an_export_that_can_be_read(
        self, memory: MemoryJobHistoryStore, export_format: ExportFormat
    ) -> None:
        assert read(exported_bytes(memory, export_format), export_format) == []

    def test_all_pages_are_in_it_and_only_what_the_filter_lets_through(
        self, memory: MemoryJobHistoryStore, export_format: ExportFormat
    ) -> None:
        for number in range(1_203):
            memory.append([submitted(f"job-{number:04}", number, queue="gpu" if number % 3 else "cpu")])
        records = read(exported_bytes(memory, export_format, JobFilter(queue="cpu")), export_format)
        assert [record["job_id"] for record in records] == [f"job-{number:04}" for number in range(1_200, -1, -3)]

    def test_secrets_are_in_none_of_the_fields(self, store: JobHistoryStore, export_format: ExportFormat) -> None:
        job = submitted(
            "job",
            payload_summary="password=hunter2",
            tags=("redis://:hunter2@host",),
            metadata=(("api_key", "hunter2"), ("innocent", "max_tokens")),
            overrides='{"kwargs":{"password":"hunter2"}}',
        )
        end = ended(
            "job",
            error_message="could not open postgresql://u:hunter2@host/db",
            traceback="token = 'hunter2hunter2'",
            result_ref='{"auth":{"token":"hunter2"},"images":3}',
        )
        store.append([job, end])

        data = exported_bytes(store, export_format, events=True)

        [record] = read(data, export_format)
        assert "hunter2" not in json.dumps(record, default=str)
        assert typed(record, export_format)["result_ref"]["images"] == 3
        assert typed(record, export_format)["metadata"]["innocent"] == "max_tokens"

    def test_events_are_in_it_when_they_are_asked_for(
        self, store: JobHistoryStore, export_format: ExportFormat
    ) -> None:
        store.append([submitted("a"), ended("a"), submitted("b", -1)])
        records = read(exported_bytes(store, export_format, events=True), export_format)
        events = [record["events"] for record in records]
        found = events if export_format is ExportFormat.JSONL else [json.loads(text) for text in events]
        assert [[event["kind"] for event in of_job] for of_job in found] == [["submitted", "ended"], ["submitted"]]


class TestFormulas:
    @pytest.mark.parametrize(
        ("summary", "cell"),
        [
            ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
            ("+1+1", "'+1+1"),
            ("-1+1", "'-1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1+1", "'\t=1+1"),
            ("\r=1+1", "'\r=1+1"),
            ("\n=1+1", "'\n=1+1"),
            ("\uff1d1+1", "'\uff1d1+1"),
            ("'quoted'", "''quoted'"),
            ('"=1+1"', '"=1+1"'),
            ("1+1=2", "1+1=2"),
            ("a@b.example", "a@b.example"),
            ("plain", "plain"),
        ],
    )
    def test_a_text_is_never_one(self, memory: MemoryJobHistoryStore, summary: str, cell: str) -> None:
        memory.append([submitted("job", payload_summary=summary)])
        [record] = read(exported_bytes(memory, ExportFormat.CSV), ExportFormat.CSV)
        assert record["payload_summary"] == cell

    def test_no_field_of_text_can_be_one(self, memory: MemoryJobHistoryStore) -> None:
        texts: dict[str, Any] = dict.fromkeys(("task", "queue", "payload_summary", "group_id", "retry_of"), "=1+1")
        evil = dict.fromkeys(("worker_id", "error_type", "error_message", "traceback", "detail"), "=1+1")
        memory.append([submitted("=1+1", **texts, overrides="=1+1", tags=("=1+1",)), ended("=1+1", **evil)])
        [record] = read(exported_bytes(memory, ExportFormat.CSV), ExportFormat.CSV)
        assert len([cell for cell in record.values() if cell == "'=1+1"]) == 11
        assert not [cell for cell in record.values() if cell.startswith(("=", "+", "-", "@"))]

    @pytest.mark.parametrize("result", ["-5", "-2.5"])
    def test_a_number_stays_a_number(self, memory: MemoryJobHistoryStore, result: str) -> None:
        memory.append([submitted("job", priority=-3), ended("job", result_ref=result, runtime=-0.5)])
        [record] = read(exported_bytes(memory, ExportFormat.CSV), ExportFormat.CSV)
        assert (record["priority"], record["runtime"], record["result_ref"]) == ("-3", "-0.5", result)


class TestFiles:
    def test_a_file_gets_its_name_when_it_is_whole_and_belongs_to_its_user_only(self, tmp_path: Path) -> None:
        target = tmp_path / "jobs.jsonl"
        with new_file(target) as stream:
            stream.write(b"1")
            assert not target.exists()
        assert target.read_bytes() == b"1"
        assert target.stat().st_mode & 0o777 == 0o600
        assert list(tmp_path.iterdir()) == [target]

    @pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
    def test_an_interrupted_one_leaves_nothing(self, tmp_path: Path, interruption: type[BaseException]) -> None:
        def write() -> None:
            with new_file(tmp_path / "jobs.jsonl") as stream:
                stream.write(b"half")
                raise interruption

        with pytest.raises(interruption):
            write()
        assert list(tmp_path.iterdir()) == []

    def test_an_existing_file_stays_unless_it_may_be_replaced(self, tmp_path: Path) -> None:
        target = tmp_path / "jobs.jsonl"
        target.write_text("old")
        with pytest.raises(ExportFailed, match="exists already"), new_file(target):
            pass
        assert target.read_text() == "old"
        with new_file(target, replace=True) as stream:
            stream.write(b"new")
        assert target.read_text() == "new"

    def test_what_is_no_file_is_never_replaced(self, tmp_path: Path) -> None:
        device = tmp_path / "device"
        os.mkfifo(device)
        for target in (device, tmp_path):
            with pytest.raises(ExportFailed, match="is no file"), new_file(target, replace=True):
                pass
        assert device.is_fifo()

    def test_one_that_appears_meanwhile_stays_too(self, tmp_path: Path) -> None:
        target = tmp_path / "jobs.jsonl"
        with pytest.raises(ExportFailed, match="exists by now"), new_file(target):
            target.write_text("another's")
        assert target.read_text() == "another's"
        assert list(tmp_path.iterdir()) == [target]

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        with (
            pytest.raises(ExportFailed, match=r"none/jobs\.jsonl cannot be written: No such file"),
            new_file(tmp_path / "none" / "jobs.jsonl"),
        ):
            pass

    def test_parquet_without_pyarrow_says_what_to_install(self, memory: MemoryJobHistoryStore) -> None:
        code = (
            "import io, sys\n"
            "sys.modules['pyarrow'] = None\n"
            "from jobledger.history.export import export_jobs\n"
            "from jobledger.history.job_history_store import JobFilter\n"
            "from jobledger.history.memory_store import MemoryJobHistoryStore\n"
            "export_jobs(MemoryJobHistoryStore(), JobFilter(), io.BytesIO(), 'parquet')\n"
        )
        failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "ExportFailed" in failed.stderr
        assert "pip install 'jobledger[parquet]'" in failed.stderr


MEASURED = """
import resource, sys
from jobledger.history.export import export_jobs
from jobledger.history.export_format import ExportFormat
from jobledger.history.job_history_store import JobFilter
from jobledger.history.sql_store import SqlJobHistoryStore

store = SqlJobHistoryStore.open(sys.argv[1])
with open("/dev/null", "wb") as stream:
    written = export_jobs(store, JobFilter(), stream, ExportFormat(sys.argv[2]))
store.close()
print(written, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("export_format", [ExportFormat.JSONL, ExportFormat.PARQUET])
def test_memory_does_not_grow_with_the_number_of_jobs(
    export_format: ExportFormat, sqlite_url: str, open_store: Callable[[str], SqlJobHistoryStore]
) -> None:
    store = open_store(sqlite_url)
    store.append([submitted("job"), ended("job", traceback="x" * 500)])
    _multiply(sqlite_url, 0, 15_000)
    few, small = _measure(sqlite_url, export_format)
    _multiply(sqlite_url, 15_000, 100_000)
    many, large = _measure(sqlite_url, export_format)
    assert (few, many) == (15_001, 100_001)
    assert large - small < 25, f"{small} MB for {few} jobs, {large} MB for {many}"


def _multiply(url: str, start: int, end: int) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(_copies(start, end))
    engine.dispose()


def _copies(start: int, end: int) -> Any:
    first = select(literal(start).label("number")).cte("numbers", recursive=True)
    numbers = first.union_all(select(first.c.number + 1).where(first.c.number < end - 1))
    copied = [column for column in jobs.c if column.name != "job_id"]
    copies = select(literal("job-").concat(numbers.c.number), *copied).where(jobs.c.job_id == "job")
    everywhere = copies.select_from(jobs.join(numbers, true()))
    return insert(jobs).from_select(["job_id", *(column.name for column in copied)], everywhere)


def _measure(url: str, export_format: ExportFormat) -> tuple[int, int]:
    words = [sys.executable, "-c", MEASURED, url, export_format.value]
    answer = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    written, megabytes = answer.split()
    return int(written), int(megabytes)
