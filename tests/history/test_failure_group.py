"""Which failures are the same failure."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jobledger.history.failure_group import FailureGroup, failure_group_of
from jobledger.history.failure_message import pattern_of
from jobledger.history.job import Evidence, FailureKind, JobEnd, JobFacts, JobHistoryEntry, JobStatus
from jobledger.workers.recording import error_fields

DAWN = datetime(2026, 1, 2, tzinfo=UTC)
KEY = "AKIAIOSFODNN7EXAMPLE"


def group(
    task: str | None = "shop.jobs.ship", kind: FailureKind | None = FailureKind.EXCEPTION, **end: Any
) -> FailureGroup:
    found = failure_group_of(entry(JobStatus.FAILED, task, failure_kind=kind, **end))
    assert found is not None
    return found


def entry(status: JobStatus, task: str | None, **end: Any) -> JobHistoryEntry:
    facts = JobFacts(task=task) if task else None
    return JobHistoryEntry(job_id="job", created_at=DAWN, facts=facts, end=JobEnd(status=status, at=DAWN, **end))


# What it said


@pytest.mark.parametrize(
    ("error_type", "message", "pattern"),
    [
        ("ZeroDivisionError", "division by zero", "division by zero"),
        ("AssertionError", "", ""),
        # Numbers, ids, moments
        ("RuntimeError", "order 1001 is gone", "order # is gone"),
        ("RuntimeError", "order ORD-2026-00017 failed", "order ORD-# failed"),
        ("RuntimeError", "took 12.5 s, from 2026-11-22 10:00:01 on", "took # s, from # on"),
        ("RuntimeError", "job 019a8b3e-6c1f-7d20-9a31-5f0e2b7c4d11 is gone", "job # is gone"),
        ("RuntimeError", "batch a8f3k2p9xx failed", "batch # failed"),
        ("RuntimeError", "<Order object at 0x7f8a1c20> has no lines", "<Order object at #> has no lines"),
        ("ConnectTimeout", "fe80::1ff:fe23:4567:890a did not answer", "# did not answer"),
        ("JSONDecodeError", "Expecting value: line 3 column 9 (char 42)", "Expecting value: line # column # (char #)"),
        (
            "OutOfMemoryError",
            "CUDA out of memory. Tried to allocate 20.00 MiB (6.1 GiB already allocated)",
            "CUDA out of memory. Tried to allocate # MiB (# GiB already allocated)",
        ),
        # What tells errors apart although it is a number
        ("ApiError", "HTTP 503: no answer after 30 s", "HTTP 503: no answer after # s"),
        ("HTTPError", "HTTP Error 429: Too Many Requests", "HTTP Error 429: Too Many Requests"),
        (
            "HTTPError",
            "404 Client Error: Not Found for url: https://api.example.com/v1/orders/8812?x=1",
            "404 Client Error: Not Found for url: <url>",
        ),
        ("OSError", "[Errno 28] No space left on device", "[Errno 28] No space left on device"),
        ("RuntimeError", "status code: 500", "status code: 500"),
        (
            "WorkerLostError",
            "Worker exited prematurely: signal 9 (SIGKILL) Job: 12.",
            "Worker exited prematurely: signal 9 (SIGKILL) Job: #.",
        ),
        # Quoted data, and quoted names
        ("ValueError", "unknown user 'alice'", "unknown user '…'"),
        ("ValueError", "could not convert string to float: 'abc'", "could not convert string to float: '…'"),
        ("ValueError", "can't open the user's file 'a b'", "can't open the user's file '…'"),
        ("KeyError", "'customer_id'", "'customer_id'"),
        ("KeyError", "'a8f3-22'", "'…'"),
        ("KeyError", "1001", "#"),
        (
            "AttributeError",
            "'NoneType' object has no attribute 'split'",
            "'NoneType' object has no attribute 'split'",
        ),
        ("ModuleNotFoundError", "No module named 'shop.rates'", "No module named 'shop.rates'"),
        ("TypeError", "ship() got an unexpected keyword argument 'speed'", None),
        ("TypeError", "unsupported operand type(s) for +: 'int' and 'NoneType'", None),
        ("ProgrammingError", 'relation "orders" does not exist', None),
        (
            "IntegrityError",
            '(psycopg.errors.UniqueViolation) duplicate key value violates unique constraint "users_email_key"\n'
            "DETAIL:  Key (email)=(bob@example.com) already exists.\n[SQL: INSERT INTO users ...]",
            '(psycopg.errors.UniqueViolation) duplicate key value violates unique constraint "users_email_key"',
        ),
        ("IntegrityError", "Key (email)=(bob@example.com) already exists.", "Key (email)=(…) already exists."),
        # Addresses, paths, lists, options
        (
            "OperationalError",
            'connection to server at "10.0.3.17", port 5432 failed: Connection refused',
            'connection to server at "…", port # failed: Connection refused',
        ),
        ("RuntimeError", "no mail for bob.smith+x@example.co.uk today", "no mail for <email> today"),
        (
            "FileNotFoundError",
            "[Errno 2] No such file or directory: '/srv/in/2026/a b.jpg'",
            "[Errno 2] No such file or directory: '…'",
        ),
        ("RuntimeError", "cannot read /srv/in/lighthouse.jpg: empty", "cannot read <path>: empty"),
        ("RuntimeError", r"C:\data\in\x.jpg is broken and/or empty", "<path> is broken and/or empty"),
        ("RuntimeError", "lighthouse.jpg in data/in/harbour is broken", "<path> in <path> is broken"),
        ("RuntimeError", "timed out: order=A12 user=alice", "timed out: order=… user=…"),
        ("RuntimeError", "missing in ['a', 'b', {'c': 1}]", "missing in […]"),
        (
            "CalledProcessError",
            "Command '['ffmpeg', '-i', '/tmp/x.mp4']' returned non-zero exit status 137.",
            "Command '…' returned non-zero exit status 137.",
        ),
        (
            "ConnectionError",
            "HTTPSConnectionPool(host='api.x.com', port=443): Max retries exceeded with url: /v1/orders/88 (Caused by "
            "NewConnectionError('<urllib3.connection.HTTPSConnection object at 0x7f2c>: [Errno 111] refused'))",
            "HTTPSConnectionPool(…): Max retries exceeded with url: <path> (Caused by NewConnectionError('…'))",
        ),
        # Only the first line; the rest repeats the data
        ("ValidationError", "3 validation errors for Order\nprice\n  Input should be", "# validation errors for Order"),
        ("RuntimeError", "\n\n  the  second   line\nthe third", "the second line"),
        ("RuntimeError", "Bestellung „Müller“ nicht gefunden: 17 Stück", "Bestellung „Müller“ nicht gefunden: # Stück"),
    ],
)
def test_the_words_of_a_message_stay_and_its_data_goes(error_type: str, message: str, pattern: str | None) -> None:
    assert pattern_of(message, error_type) == (message if pattern is None else pattern)


@pytest.mark.parametrize(
    "piece", ["x ", "'", "(", "{'a", "a/", "1:", "#-", "=(", "a-", "[1,", "aA1", "''", "\\\\", "@."]
)
def test_no_message_makes_a_pattern_long(piece: str) -> None:
    assert len(pattern_of(piece * 100_000, "ValueError")) <= 200


def test_the_type_is_not_said_twice() -> None:
    found = group(error_type="ValueError", error_message="ValueError: no route")
    assert (found.error_type, found.pattern) == ("ValueError", "no route")
    assert group(error_type="ValueError", error_message="ValueError").pattern == ""


# Where it was


@pytest.fixture
def raised(tmp_path: Path) -> Callable[..., str]:
    """Run some code of the files that are given; return its traceback, as a worker makes it."""

    def run(files: dict[str, str], code: str) -> str:
        space: dict[str, Any] = {}
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            exec(compile(text, str(path), "exec"), space)
        try:
            exec(compile(code, "<run>", "exec"), space)
        except Exception as error:
            own_frame = error.__traceback__
            return "".join(traceback.format_exception(error.with_traceback(own_frame and own_frame.tb_next)))
        raise AssertionError("the code raised nothing")

    return run


LIBRARY = "def load(text):\n    import json\n    return json.loads(text)\n"
LIBRARY_PATH = "lib/python3.12/site-packages/fetcher/io.py"


def test_the_frame_is_the_innermost_one_of_the_users_own_code(raised: Callable[..., str]) -> None:
    own = "def ship(text):\n    return convert(text)\ndef convert(text):\n    return load(text)\n"
    text = raised({LIBRARY_PATH: LIBRARY, "shop/jobs.py": own}, "ship('{')")
    assert "site-packages/fetcher" in text
    assert "json/decoder.py" in text
    assert group(traceback=text).frame == "shop/jobs.py:convert"


def test_of_chained_errors_the_newest_counts(raised: Callable[..., str]) -> None:
    for ending in ("raise ValueError('no') from error", "raise ValueError('no')"):
        own = f"def ship():\n    try:\n        low()\n    except KeyError as error:\n        {ending}\n"
        text = raised({"shop/low.py": "def low():\n    {}['x']\n", "shop/jobs.py": own}, "ship()")
        assert "shop/low.py" in text
        assert group(traceback=text).frame == "shop/jobs.py:ship"


def test_an_error_that_a_library_made_of_ones_own_has_the_own_frame(raised: Callable[..., str]) -> None:
    library = (
        "def call(it):\n    try:\n        it()\n    except KeyError as error:\n        raise ValueError() from error\n"
    )
    text = raised({LIBRARY_PATH: library, "shop/jobs.py": "def ship():\n    {}['x']\n"}, "call(ship)")
    assert group(traceback=text).frame == "shop/jobs.py:ship"


def test_a_group_of_exceptions_has_the_frame_where_it_was_raised(raised: Callable[..., str]) -> None:
    own = (
        "def low():\n    {}['x']\n"
        "def ship():\n"
        "    try:\n        low()\n    except KeyError as error:\n        found = error\n"
        "    raise ExceptionGroup('both', [found, ValueError('two')])\n"
    )
    assert group(traceback=raised({"shop/jobs.py": own}, "ship()")).frame == "shop/jobs.py:ship"


def test_own_code_may_be_installed_beside_the_libraries(raised: Callable[..., str]) -> None:
    own = "def ship(text):\n    return load(text)\n"
    files = {LIBRARY_PATH: LIBRARY, "lib/python3.12/site-packages/shop/jobs.py": own}
    text = raised(files, "ship('{')")
    assert group("shop.jobs.ship", traceback=text).frame == "shop/jobs.py:ship"
    assert group("ship", traceback=text).frame == "json/decoder.py:raw_decode"


def test_jobledger_and_celery_are_not_the_users_own_code(raised: Callable[..., str]) -> None:
    import jobledger

    house = Path(jobledger.__file__).parent
    frames = [
        ("/venv/src/celery/app/trace.py", "trace_task"),
        ("/srv/shop/jobs.py", "ship"),
        (str(house / "workers" / "job_context.py"), "progress"),
        ("<frozen importlib._bootstrap>", "_find_and_load"),
    ]
    text = "".join(f'  File "{file}", line 7, in {function}\n    x()\n' for file, function in frames)
    assert group(traceback=f"Traceback (most recent call last):\n{text}ValueError").frame == "shop/jobs.py:ship"


def test_the_same_error_of_two_releases_and_lines_is_one_group() -> None:
    first, second = (
        group(
            error_type="ValueError",
            error_message=f"ValueError: {number}",
            traceback=f'Traceback:\n  File "/srv/2026-{number}/jobs.py", line {number}, in ship\nValueError: {number}',
        )
        for number in (17, 18)
    )
    assert first == second
    assert first.frame == "#-#/jobs.py:ship"


def test_the_same_words_in_two_places_are_two_groups() -> None:
    text = 'Traceback:\n  File "/srv/shop/jobs.py", line 7, in {}\nValueError: no'
    groups = {group(error_message="no", traceback=text.format(place)).fingerprint for place in ("ship", "bill")}
    assert len(groups) == 2


# Failures that nobody raised


def test_without_a_traceback_the_task_is_the_place() -> None:
    lost: dict[str, Any] = {"kind": FailureKind.WORKER_LOST, "detail": "boot 019a of node-1 ended at 10:00"}
    assert group("a", **lost)[1:] == ("worker_lost", "", "a")
    assert group("a", **lost) != group("b", **lost)
    assert group("a", **lost) == group("a", kind=FailureKind.WORKER_LOST, detail="boot 77 of node-2 ended")
    assert len({group("a", kind=kind) for kind in FailureKind}) == len(FailureKind)
    assert group(None, kind=None)[1:] == ("exception", "", "")


def test_a_traceback_of_the_worker_itself_is_no_place() -> None:
    stack = 'Traceback:\n  File "/venv/src/billiard/pool.py", line 7, in mark_as_worker_lost\nWorkerLostError'
    found = group(kind=FailureKind.WORKER_LOST, error_type="WorkerLostError", traceback=stack)
    assert found.frame == "shop.jobs.ship"


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.CANCELLED])
def test_other_ends_are_in_no_group(status: JobStatus) -> None:
    assert failure_group_of(entry(status, "a", error_message="odd", evidence=Evidence.OWN)) is None
    assert failure_group_of(JobHistoryEntry(job_id="job", created_at=DAWN)) is None


def test_an_overtaken_failure_is_in_no_group() -> None:
    overtaken = JobHistoryEntry(
        job_id="job", created_at=DAWN, retries=1, end=JobEnd(status=JobStatus.FAILED, at=DAWN, retries=0)
    )
    assert failure_group_of(overtaken) is None


# Secrets


@pytest.mark.parametrize(
    "message",
    [
        f"login failed for key {KEY}",
        "cannot connect to postgresql://shop:hunter2@db/shop",
        "password=hunter2 was refused",
        '{"api_key": "hunter2hunter2"} was refused',
        "Authorization: Bearer hunter2hunter2hunter2",
    ],
)
def test_no_secret_of_a_message_gets_into_a_group(message: str) -> None:
    try:
        raise ValueError(message)
    except ValueError as error:
        fields = error_fields(error, FailureKind.EXCEPTION)
    del fields["failure_kind"]
    told = json.dumps(group(**fields))
    assert "hunter2" not in told
    assert KEY not in told
    assert "test_no_secret_of_a_message_gets_into_a_group" in told
