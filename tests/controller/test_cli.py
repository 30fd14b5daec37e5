"""The command line, as a user meets it: real processes, on a real broker, with real workers."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import pwd
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from jobledger.history.event import EventKind
from jobledger.history.job import JobStatus
from jobledger.history.schema_version import REVISIONS

from ..history.raw_database import load_old_ledger

PROGRAM = Path(sys.executable).with_name("jobledger")
ROOT = Path(__file__).parents[2]
UNKNOWN = "01a200d1-8b76-7769-9c81-6a1c226202ab"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(site: Any) -> Run:
    """Run the program on the tests' application, in an empty directory."""
    return lambda *words, **more: _run(words, site.environment_with(**{"JOBLEDGER_APP": "jobs:app", **more}))


@pytest.fixture
def bare(data_dir: Path) -> Run:
    """Run the program on a bare machine: no application, no broker, only a data directory."""
    environment = {**os.environ, "JOBLEDGER_DATA_DIR": str(data_dir)}
    return lambda *words, **more: _run(words, {**environment, **more})


def _run(words: tuple[str, ...], environment: dict[str, str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *words],
        env=environment,
        cwd=environment["JOBLEDGER_DATA_DIR"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def data(result: subprocess.CompletedProcess[str]) -> Any:
    """Return what was printed, which must be JSON and nothing else."""
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def refusal(result: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the one sentence on stderr, after which there is nothing else."""
    assert result.returncode == code, result.stdout + result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    return result.stderr.strip()


# Submit, list, show


def test_a_submitted_job_is_listed_shown_and_runs(site: Any, run: Run) -> None:
    words = ("--args", "[2, 3]", "--priority", "high", "--tag", "sums", "--id", "my.job:1", "--cancel-grace", "3")
    labels = ("--group", "october", "--meta", "customer=acme", "--meta", "formula=a=b")
    assert data(run("submit", "jobs.add", *words, *labels, "--json")) == {"job_id": "my.job:1"}

    [listed] = data(run("jobs", "--json"))["jobs"]
    assert (listed["job_id"], listed["status"], listed["task"]) == ("my.job:1", "QUEUED", "jobs.add")
    assert (listed["priority_name"], listed["tags"], listed["payload_summary"]) == ("high", ["sums"], "2, 3")
    assert (listed["group_id"], listed["metadata"]) == ("october", {"customer": "acme", "formula": "a=b"})
    site.start_worker()
    site.wait_for_end("my.job:1")
    shown = data(run("show", "my.job:1", "--json"))
    assert (shown["status"], shown["result_ref"]) == ("COMPLETED", "5")
    assert [event["kind"] for event in shown["events"]] == ["submitted", "handed_over", "started", "ended"]
    assert shown["events"][-1]["end"]["status"] == "COMPLETED"
    assert shown["log"] == []
    page = run("show", "my.job:1").stdout
    assert re.search(r"tags +sums\ngroup +october\nmetadata +customer=acme, formula=a=b\n", page), page


def test_what_people_read_says_the_same(site: Any, run: Run) -> None:
    site.start_worker()
    sent = run("submit", "jobs.boom", "--kwargs", '{"message": "no route"}')
    assert sent.returncode == 0, sent.stderr
    job_id = re.findall(r"[0-9a-f-]{36}", sent.stdout)[0]
    site.wait_for_end(job_id)

    listed = run("jobs").stdout
    assert re.search(rf"{job_id} +FAILED +\S+ s +normal +jobs.boom +ValueError: no route", listed), listed
    first, reason, *rest = run("show", job_id).stdout.splitlines()
    assert first == "FAILED  jobs.boom"
    assert reason == "exception: ValueError: no route"
    assert any("in boom" in line for line in rest)
    assert any(re.search(r"ended .* FAILED, by its own end: ValueError: no route", line) for line in rest)
    assert f"jobledger retry {job_id}" in "\n".join(rest)


def test_a_jobs_log_and_progress_are_shown(site: Any, run: Run) -> None:
    site.start_worker()
    job_id = data(run("submit", "jobs.chatter", "--args", "[3]", "--json"))["job_id"]
    site.wait_for_end(job_id)

    shown = data(run("show", job_id, "--json"))
    assert [(line["level"], line["text"]) for line in shown["log"]] == [("INFO", f"line {n}") for n in range(3)]
    page = run("show", job_id).stdout
    assert "3 of 3 (step 3)" in page
    assert re.search(r"LOG\n\S+  INFO      line 0\n\S+  INFO      line 1", page)
    assert [line["text"] for line in data(run("show", job_id, "--log", "2", "--json"))["log"]] == ["line 1", "line 2"]
    assert "LOG" not in run("show", job_id, "--log", "0").stdout


def test_arguments_come_from_a_file_and_from_standard_input(site: Any, run: Run, tmp_path: Path) -> None:
    (tmp_path / "long.json").write_text(json.dumps(["x" * 200_000]))
    from_file = data(run("submit", "jobs.echo", "--args", f"@{tmp_path / 'long.json'}", "--json"))["job_id"]
    piped = subprocess.run(
        [PROGRAM, "submit", "jobs.echo", "--args", "-", "--json"],
        env=site.environment_with(JOBLEDGER_APP="jobs:app"),
        input="[1]",
        capture_output=True,
        text=True,
        check=True,
    )
    assert site.store.get_job(from_file).payload_summary.startswith("xxx")
    assert site.store.get_job(json.loads(piped.stdout)["job_id"]).payload_summary == "1"


def test_lists_are_filtered_and_go_on_at_a_cursor(site: Any, run: Run) -> None:
    ids = [site.controller.submit("jobs.add", [1, number]) for number in range(5)]
    site.controller.cancel_job(ids[0])
    site.controller.submit("jobs.echo", queue="elsewhere")

    first = data(run("jobs", "--json", "--limit", "3", "--task", "jobs.add"))
    rest = data(run("jobs", "--json", "--limit", "3", "--task", "jobs.add", "--cursor", first["next_cursor"]))

    assert [job["job_id"] for job in first["jobs"] + rest["jobs"]] == ids[::-1]
    assert rest["next_cursor"] is None
    assert [job["job_id"] for job in data(run("jobs", "--json", "--status", "cancelled"))["jobs"]] == ids[:1]
    both = data(run("jobs", "--json", "--status", "CANCELLED", "--status", "QUEUED", "--task", "jobs.add"))
    assert len(both["jobs"]) == 5
    assert [job["task"] for job in data(run("jobs", "--json", "--queue", "elsewhere"))["jobs"]] == ["jobs.echo"]
    assert "--cursor" in run("jobs", "--limit", "2").stderr


def test_jobs_are_found_by_their_labels_their_family_their_times_and_their_words(site: Any, run: Run) -> None:
    submit = site.controller.submit
    first = submit("jobs.add", [1, 2], tags=["monthly", "books"], group_id="october", metadata={"customer": "acme"})
    other = submit("jobs.echo", ["Quicksilver"], tags=["monthly"])
    site.store.index_for_search()

    def listed(*flags: str) -> list[str]:
        return [job["job_id"] for job in data(run("jobs", "--json", *flags))["jobs"]]

    assert listed("--tag", "monthly") == [other, first]
    assert listed("--tag", "monthly", "--tag", "books") == [first]
    assert listed("--meta", "customer=acme") == listed("--group", "october") == listed("--family", first) == [first]
    assert listed("--since", "1h") == [other, first]
    assert listed("--until", "1h") == listed("--worker", "nobody@host") == listed("--failure-group", "none") == []
    assert listed("--search", "ADD monthly") == [first]
    short, wrong_time = run("jobs", "--search", "ab"), run("jobs", "--since", "soon")
    assert (short.returncode, wrong_time.returncode) == (2, 2)
    assert "at least 3 characters" in short.stderr


def test_what_a_job_wrote_cannot_steer_the_terminal(site: Any, run: Run) -> None:
    site.start_worker()
    job_id = site.controller.submit("jobs.boom", ["\x1b[2J\x1b]0;owned\x07[red]evil[/red]\r"])
    site.wait_for_end(job_id)

    for result in (run("jobs"), run("show", job_id)):
        assert "[red]evil[/red]" in result.stdout
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", result.stdout)


def test_a_pipeline_is_submitted_from_json_and_from_toml(site: Any, run: Run, tmp_path: Path) -> None:
    config = {"stages": [{"name": "load"}, {"name": "save"}], "input": {"paths": ["a.jpg"]}}
    (tmp_path / "p.json").write_text(json.dumps(config))
    (tmp_path / "p.toml").write_text('input.paths = ["a.jpg"]\n[[stages]]\nname = "load"\n[[stages]]\nname = "save"\n')
    for name in ("p.json", "p.toml"):
        job_id = data(run("submit-pipeline", str(tmp_path / name), "--priority", "low", "--json"))["job_id"]
        job = data(run("show", job_id, "--json"))
        assert (job["task"], job["priority_name"]) == ("jobledger.run_pipeline", "low")


# Cancel, retry, watch


def test_a_queued_job_is_cancelled_with_its_reason_and_the_users_name(site: Any, run: Run) -> None:
    job_id = site.controller.submit("jobs.add", [1, 2])

    outcome = data(run("cancel", job_id, "--reason", "typo", "--json"))

    assert outcome == {"job_id": job_id, "status": "CANCELLED", "waiting_for": None}
    entry = site.store.get_job(job_id)
    user = pwd.getpwuid(os.getuid()).pw_name
    assert (entry.cancel_actor, entry.cancel_reason) == (user, "typo")
    headline, first_reason = run("show", job_id).stdout.splitlines()[:2]
    assert headline == "CANCELLED  jobs.add"
    assert re.fullmatch(rf"cancel asked by {user} at [0-9: -]+: typo", first_reason)


def test_a_cancel_waits_for_the_proof_without_any_leader(site: Any, run: Run) -> None:
    site.start_worker()
    job_id = site.controller.submit("jobs.polite", [60])
    site.wait_for_status(job_id, JobStatus.RUNNING)

    result = run("cancel", job_id, "--wait", "20")

    assert result.returncode == 0, result.stderr
    assert result.stdout == f"Job {job_id} is CANCELLED.\n"
    assert site.status(job_id) is JobStatus.CANCELLED


def test_a_cancel_that_is_not_proven_yet_says_what_it_waits_for(site: Any, run: Run) -> None:
    worker = site.start_worker()
    job_id = site.controller.submit("jobs.nap", [20], cancel_grace=30)
    site.wait_for_status(job_id, JobStatus.RUNNING)

    at_once = run("cancel", job_id)
    waited = run("cancel", job_id, "--wait", "0.5")

    assert at_once.returncode == 0
    assert re.search(f"is being cancelled: it runs on {worker.name}", at_once.stdout)
    assert waited.returncode == 1
    assert "has not stopped after 0.5 s" in waited.stderr


def test_a_retry_repeats_a_job_exactly_or_with_the_changes(site: Any, run: Run) -> None:
    site.start_worker()
    job_id = site.controller.submit("jobs.echo", [1], {"month": "10", "deep": {"a": [1]}})
    site.wait_for_end(job_id)

    again = data(run("retry", job_id, "--json"))
    changes = ("--set", "kwargs.month=november", "--set", "kwargs.deep.a.0=7", "--set", "priority=high")
    changed = data(run("retry", job_id, *changes, "--json"))

    assert again["retry_of"] == job_id
    result = json.loads(site.wait_for_end(again["job_id"]).end.result_ref)
    assert result == {"args": [1], "kwargs": {"month": "10", "deep": {"a": [1]}}}
    entry = site.wait_for_end(changed["job_id"])
    assert json.loads(entry.end.result_ref)["kwargs"] == {"month": "november", "deep": {"a": [7]}}
    shown = data(run("show", changed["job_id"], "--json"))
    assert (shown["priority_name"], shown["retry_of"]) == ("high", job_id)
    later = [(job["job_id"], job["retry_of"]) for job in data(run("show", job_id, "--json"))["later_retries"]]
    assert later == [(changed["job_id"], job_id), (again["job_id"], job_id)]
    assert re.search(rf"later retry +{again['job_id']} COMPLETED\n", run("show", job_id).stdout)
    assert shown["later_retries"] == []
    family = [changed["job_id"], again["job_id"], job_id]
    for member in family:
        assert [job["job_id"] for job in data(run("jobs", "--family", member, "--json"))["jobs"]] == family


def test_watch_follows_one_job_until_its_end(site: Any, run: Run) -> None:
    site.start_worker()
    job_id = site.controller.submit("jobs.nap", [1])

    lines = [json.loads(line) for line in run("watch", job_id, "--json").stdout.splitlines()]

    assert [line["job_id"] for line in lines] == [job_id] * len(lines)
    assert lines[-1]["status"] == "COMPLETED"
    ended = site.store.get_job(job_id).completed_at.astimezone()
    line = run("watch", job_id, TZ="").stdout
    assert re.search(rf"{job_id}  COMPLETED  jobs.nap  took 1.\d s", line), line
    assert f"{ended.astimezone(UTC):%Y-%m-%d %H:%M:%S}" in line, "an ended job has the moment of its end"


def test_watch_shows_the_newest_jobs_on_a_terminal_until_ctrl_c(site: Any, eventually: Any) -> None:
    job_id = site.controller.submit("jobs.add", [1, 2])
    terminal, inner = pty.openpty()
    environment = site.environment_with(JOBLEDGER_APP="jobs:app", TERM="xterm", COLUMNS="140", LINES="30")
    process = subprocess.Popen([PROGRAM, "watch"], env=environment, stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    shown = bytearray()

    def drawn() -> bool:
        with contextlib.suppress(OSError):  # the other end is closed
            if select.select([terminal], [], [], 0.05)[0]:
                shown.extend(os.read(terminal, 65_536))
        return job_id.encode() in shown and b"QUEUED" in shown

    try:
        eventually(drawn)
        process.send_signal(signal.SIGINT)
        eventually(lambda: drawn() and process.poll() is not None)
        assert process.returncode == 130
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def test_watch_elsewhere_than_on_a_terminal_ends_by_ctrl_c_with_code_130(site: Any) -> None:
    job_id = site.controller.submit("jobs.add", [1, 2])
    environment = site.environment_with(JOBLEDGER_APP="jobs:app")
    process = subprocess.Popen(
        [PROGRAM, "watch"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert f"{job_id}  QUEUED     jobs.add" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (130, "")
    finally:
        process.kill()
        process.wait()


# Everything down


def test_reading_needs_no_broker_and_starts_nothing(bare: Run, data_dir: Path) -> None:
    job_id = data(bare("submit-pipeline", str(ROOT / "examples" / "pipeline.json"), "--json"))["job_id"]

    started = time.monotonic()
    [job] = data(bare("jobs", "--json"))["jobs"]
    seconds = time.monotonic() - started

    assert (job["job_id"], job["status"], job["live_source"]) == (job_id, "QUEUED", "history")
    assert seconds < 3, "without a broker nobody waits for one"
    assert data(bare("show", job_id, "--json"))["status"] == "QUEUED"
    assert not _processes_of(data_dir)


def test_a_mistyped_directory_is_told_and_nothing_is_made_there(bare: Run, data_dir: Path) -> None:
    for words in (("jobs",), ("show", UNKNOWN), ("watch",), ("watch", UNKNOWN)):
        sentence = refusal(bare(*words, "--data-dir", str(data_dir / "mistyped")), 5)
        assert f"There is no ledger at sqlite:///{data_dir / 'mistyped' / 'ledger.db'}" in sentence
    assert list(data_dir.iterdir()) == []


def test_a_submission_that_no_worker_will_take_says_so(site: Any, run: Run) -> None:
    hint = "No running worker of this ledger serves its queue"
    assert hint in run("submit", "jobs.echo").stderr
    site.start_worker()
    assert run("submit", "jobs.echo").stderr == ""
    assert hint in run("submit", "jobs.echo", "--queue", "elsewhere").stderr


def test_a_queued_job_is_cancelled_and_retried_with_everything_down(bare: Run, data_dir: Path) -> None:
    job_id = data(bare("submit-pipeline", str(ROOT / "examples" / "pipeline.json"), "--json"))["job_id"]

    assert data(bare("cancel", job_id, "--json"))["status"] == "CANCELLED"
    assert data(bare("retry", job_id, "--json"))["retry_of"] == job_id

    assert not _processes_of(data_dir)


def test_an_unreachable_broker_or_ledger_is_code_5(run: Run, site: Any) -> None:
    job_id = site.controller.submit("jobs.add", [1, 2])
    away = {"JOBLEDGER_BROKER_URL": "redis://127.0.0.1:1/0"}
    sentence = refusal(run("submit", "jobs.add", "--args", "[1, 2]", **away), 5)
    assert re.search("127.0.0.1:1.* does not answer: .*[Rr]efused", sentence)
    [unsent] = site.store.list_jobs(JobStatus.FAILED)
    assert f"Job {unsent.job_id} was not sent and is recorded as FAILED" in sentence
    assert "recorded" in refusal(run("cancel", job_id, **away), 5)
    listed = data(run("jobs", "--json", **away))
    assert {job["status"] for job in listed["jobs"]} == {"QUEUED", "FAILED"}
    ledger = {"JOBLEDGER_HISTORY_URL": "postgresql+psycopg://nobody:hunter2@127.0.0.1:1/none"}
    for words in (("jobs",), ("show", job_id), ("submit", "jobs.add", "--args", "[1, 2]"), ("db", "check")):
        assert "hunter2" not in refusal(run(*words, **ledger), 5)


# Bad input


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("submit", "jobs.unheard_of"), r"task: there is no task 'jobs.unheard_of'; the application has .*jobs.add"),
        (("submit", "jobs.add", "--args", "[1, "), "args: is not JSON"),
        (("submit", "jobs.add", "--args", "{}"), "args: must be a list, not dict"),
        (("submit", "jobs.add", "--args", "7"), "args: must be a list, not int"),
        (("submit", "jobs.add", "--args", "[NaN, 1]"), r"args\[0\]"),
        (("submit", "jobs.add", "--args", "[1]"), "args: do not fit jobs.add: .*missing"),
        (("submit", "jobs.add", "--args", "@nowhere.json"), "the file nowhere.json cannot be read"),
        (("submit", "jobs.add", "--kwargs", "[1]"), "kwargs: must be an object with names, not list"),
        (("submit", "jobs.echo", "--priority", "urgent"), "priority: 'urgent' is not .* high, normal, low or a number"),
        (("submit", "jobs.echo", "--priority", "10"), "priority: 10 is not a priority"),
        (("submit", "jobs.echo", "--id", "a b"), "job_id: must be 1 to 128 letters"),
        (("submit", "jobs.echo", "--queue", ""), "queue: must be 1 to 255"),
        (("submit", "jobs.echo", "--time-limit", "-1"), "time_limit: must be a number of seconds"),
        (("submit", "jobs.echo", "--time-limit", "0"), "time_limit: must be more than 0 seconds"),
        (("submit", "jobs.echo", "--meta", "customer"), "--meta: 'customer' is not of the form KEY=VALUE"),
        (("submit", "jobs.echo", "--meta", "a=1", "--meta", "a=2"), "--meta: 'a' is given twice"),
        (("submit", "jobs.echo", "--meta", "password=tea-time"), "metadata.password: looks like a secret"),
        (("submit", "jobs.echo", "--tag", ""), "tags: must be 1 to 100 printable characters"),
        (("submit", "jobs.echo", "--group", "x" * 300), "group_id: must be 1 to 255"),
        (("show", UNKNOWN, "--log", "1001"), "--log"),
        (("submit", "jobs.echo", "--cancel-grace", "soon"), "--cancel-grace"),
        (("submit-pipeline", "nowhere.json"), "pipeline: the file nowhere.json cannot be read"),
        (("submit", "jobs.echo", "--nonsense"), "No such option: --nonsense"),
        (("jobs", "--limit", "0"), "--limit"),
        (("jobs", "--limit", "501"), "--limit"),
        (("jobs", "--status", "DONE"), "'DONE' is not one of 'queued', 'running'"),
        (("jobs", "--cursor", "xyz"), "--cursor: 'xyz' was not given out"),
        (("jobs", "--since", ""), "--since: '' is no time"),
        (("jobs", "--since", "1h", "--until", "2h"), "--since: '1h' is not before --until '2h'"),
        (("export", "--since", "1h", "--until", "2h"), "--since: '1h' is not before --until '2h'"),
        (("prune", "--status", "failed"), "--status: says only which jobs; add --older-than or --keep"),
        (("retry", UNKNOWN, "--set", "nonsense"), "--set: 'nonsense' is not of the form KEY=VALUE"),
        (("cancel", UNKNOWN, "--wait", "-1"), "--wait"),
        (("db", "stamp", "0815"), "'0815' is no schema version; known: 0001"),
        (("dance",), "No such command 'dance'"),
        (("cancel",), "Missing argument 'ID'"),
    ],
)
def test_wrong_usage_is_one_sentence_and_code_2_and_changes_nothing(
    site: Any, run: Run, words: tuple[str, ...], told: str
) -> None:
    assert site.store.list_jobs() == []
    assert re.search(told, refusal(run(*words), 2))
    assert site.store.list_jobs() == []
    assert site.redis.keys("*celery*") == []


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"stages": "load"}, "stages"),
        ({"stages": [{"name": "conjure"}]}, r"stages\[0\].name: there is no stage 'conjure'; known ones: crop, "),
        ({"stages": [{"name": "resize", "settings": {"width": "wide"}}]}, r"stages\[0\].settings.width"),
        ({"stages": [{"name": "load"}], "seed": "x"}, "seed"),
        ({"stages": [{"name": "load"}], "metadata": {"api_key": "sk-123456789012345678901234"}}, "metadata.api_key"),
        ({"stages": [{"name": "load"}], "schema_version": 2}, "schema_version: is 2, from a newer"),
        ([1], "pipeline: must be an object"),
    ],
)
def test_a_pipeline_that_does_not_fit_is_refused_with_the_field(
    site: Any, run: Run, tmp_path: Path, config: Any, told: str
) -> None:
    file = tmp_path / "pipeline.json"
    file.write_text(json.dumps(config))
    sentence = refusal(run("submit-pipeline", str(file)), 2)
    assert re.search(told, sentence)
    assert "sk-1234" not in sentence
    assert site.store.list_jobs() == []


@pytest.mark.parametrize(("name", "content"), [("p.json", "{"), ("p.toml", "stages = ["), ("p.json", "\xff")])
def test_a_pipeline_file_that_is_neither_json_nor_toml_is_refused(
    run: Run, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    assert re.search("is not JSON|is not TOML|is not a text", refusal(run("submit-pipeline", str(tmp_path / name)), 2))


def test_an_over_long_payload_is_refused_with_the_limit(site: Any, run: Run, tmp_path: Path) -> None:
    (tmp_path / "long.json").write_text(json.dumps(["x" * 1_100_000]))
    sentence = refusal(run("submit", "jobs.echo", "--args", f"@{tmp_path / 'long.json'}"), 2)
    assert "1,048,576" in sentence
    assert site.store.list_jobs() == []


def test_a_missing_picture_fails_with_its_name(
    site: Any, run: Run, start: Callable[..., Background], tmp_path: Path
) -> None:
    site.environment["JOBLEDGER_INPUT_DIRS"] = str(tmp_path)
    start("worker", "--concurrency", "1", environment=site.environment_with(JOBLEDGER_APP="jobs:app"))
    (tmp_path / "p.json").write_text('{"stages": [{"name": "load"}, {"name": "save"}], "input": {"paths": ["no.jpg"]}}')
    job_id = data(run("submit-pipeline", str(tmp_path / "p.json"), "--json"))["job_id"]
    assert run("watch", job_id).returncode == 0
    shown = data(run("show", job_id, "--json"))
    assert shown["status"] == "FAILED"
    assert "'no.jpg' does not exist" in shown["last_error"]


@pytest.mark.parametrize("job_id", [UNKNOWN, "no such job", "x" * 5_000, "'; DROP TABLE jobs; --", "", "\udcff"])
@pytest.mark.parametrize("command", ["show", "watch", "cancel", "retry"])
def test_an_id_that_nobody_gave_out_is_code_3(site: Any, run: Run, command: str, job_id: str) -> None:
    site.store.check()
    sentence = refusal(run(command, job_id), 3)
    assert "No job has the id" in sentence
    assert len(sentence) < 300


def test_what_a_jobs_status_or_a_setting_forbids_is_code_4(site: Any, run: Run) -> None:
    queued = site.controller.submit("jobs.add", [1, 1])
    assert "is QUEUED; retry is not possible" in refusal(run("retry", queued), 4)
    off = {"JOBLEDGER_JOB_ACTIONS_ENABLED": "false"}
    assert "Job actions are disabled" in refusal(run("cancel", queued, **off), 4)
    assert "Job actions are disabled" in refusal(run("retry", queued, **off), 4)
    site.start_worker()
    site.wait_for_end(queued)
    assert "is COMPLETED; cancel is not possible" in refusal(run("cancel", queued), 4)
    other_key = {"JOBLEDGER_SNAPSHOT_KEY": data(run("token", "key", "--json"))["snapshot_key"]}
    assert "sealed with another key" in refusal(run("retry", queued, **other_key), 4)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"JOBLEDGER_APP": "nowhere:app"}, "'nowhere' cannot be imported: ModuleNotFoundError"),
        ({"JOBLEDGER_APP": "jobs"}, "'jobs' is not of the form module:attribute"),
        ({"JOBLEDGER_APP": "jobs:nothing"}, "'jobs:nothing' is no Celery application of 'jobs'; it has app"),
        ({"JOBLEDGER_BROKER_URL": "nonsense://x"}, "broker_url .* names no broker"),
        ({"JOBLEDGER_HISTORY_URL": "nonsense"}, "history_url|HISTORY_URL"),
        ({"JOBLEDGER_HEARTBEAT_INTERVAL": "soon"}, r"heartbeat_interval \(JOBLEDGER_HEARTBEAT_INTERVAL\)"),
        ({"JOBLEDGER_CONFIG": "/nowhere.toml"}, "The settings file /nowhere.toml does not exist"),
        ({"JOBLEDGER_SNAPSHOT_KEY": "short"}, "JOBLEDGER_SNAPSHOT_KEY is not a Fernet key"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_code_2(run: Run, environment: dict[str, str], told: str) -> None:
    assert re.search(told, refusal(run("submit", "jobs.echo", **environment), 2))


def test_flags_go_over_the_environment_and_the_file_before_and_after_the_command(
    site: Any, run: Run, data_dir: Path
) -> None:
    site.controller.submit("jobs.add", [1, 1])
    empty = f"sqlite:///{data_dir / 'other.db'}"
    run("db", "upgrade", "--history-url", empty)
    assert len(data(run("jobs", "--json"))["jobs"]) == 1
    for words in (("jobs", "--json", "--history-url", empty), ("--history-url", empty, "jobs", "--json")):
        assert data(run(*words))["jobs"] == []
    file = data_dir / "my.toml"
    file.write_text(f'history_url = "{empty}"\n')
    assert len(data(run("jobs", "--json", "--config", str(file)))["jobs"]) == 0
    assert (
        len(data(run("jobs", "--json", "--config", str(file), JOBLEDGER_HISTORY_URL=site.settings.ledger_url))["jobs"])
        == 1
    )
    file.write_text("colour = 1\n")
    assert "there is no setting 'colour'" in refusal(run("jobs", "--config", str(file)), 2)
    assert "--app is empty" in refusal(run("jobs", "--app", ""), 2)


# Upkeep


def test_the_schema_is_checked_made_and_stamped(bare: Run, data_dir: Path) -> None:
    ledger, newest = f"sqlite:///{data_dir / 'ledger.db'}", REVISIONS[-1]
    missing = bare("db", "check")
    assert missing.returncode == 5
    assert missing.stdout.startswith(f"{ledger}: empty; there is no ledger yet; `jobledger db upgrade` makes one")
    assert not (data_dir / "ledger.db").exists(), "a check makes nothing"
    assert bare("db", "upgrade").stdout == f"{ledger}: empty before, made with schema {newest}.\n"
    assert data(bare("db", "check", "--json")) == {
        "ledger": ledger,
        "schema": "current",
        "revision": newest,
        "newest": newest,
    }
    assert bare("db", "upgrade").stdout == f"{ledger}: current before ({newest}), nothing to do.\n"
    assert bare("db", "check").stdout == f"{ledger}: current ({newest}); it fits this version.\n"
    assert data(bare("db", "stamp", "--json")) == {"ledger": ledger, "revision": newest}
    assert bare("db", "stamp").stdout == f"{ledger}: stamped as {newest}.\n"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_old_ledger_is_named_with_the_command_that_upgrades_it(
    bare: Run, data_dir: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{data_dir / 'ledger.db'}" if kind == "sqlite" else request.getfixturevalue("postgresql_url")
    load_old_ledger(url, "0001")
    found = bare("db", "check", "--history-url", url)
    assert found.returncode == 5
    assert f": older (0001); this version needs {REVISIONS[-1]}: stop what writes to it and run `" in found.stdout
    assert "older schema, 0001" in refusal(bare("jobs", "--history-url", url), 5)
    assert "those of 0001, not of" in refusal(bare("db", "stamp", REVISIONS[-1], "--history-url", url), 5)
    assert data(bare("db", "upgrade", "--history-url", url, "--json")) == {
        "ledger": url,
        "before": "older",
        "from": "0001",
        "to": REVISIONS[-1],
        "applied": list(REVISIONS[1:]),
    }
    assert len(data(bare("jobs", "--history-url", url, "--json"))["jobs"]) == 6


def test_a_fresh_key_is_one_that_the_setting_takes(bare: Run) -> None:
    first, second = bare("token", "key").stdout.strip(), bare("token", "key").stdout.strip()
    assert first != second
    assert bare("doctor", JOBLEDGER_SNAPSHOT_KEY=first).stderr == ""


def test_every_command_has_help_with_an_example(bare: Run) -> None:
    for words in _commands(bare):
        result = bare(*words, "--help", COLUMNS="200", TERM="dumb")
        assert result.returncode == 0
        assert f"jobledger {' '.join(words)}" in result.stdout.split("Usage:")[1].split("\n", 1)[1], words


def test_every_command_and_option_is_in_the_documentation(bare: Run) -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    sections = dict(
        re.findall(r"^## `jobledger ([a-z -]+?)(?: [A-Z[][^`]*)?`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    )
    general = page.split("## `jobledger ")[0]
    for words in _commands(bare):
        text = sections.get(" ".join(words), "")
        shown = bare(*words, "--help", COLUMNS="200", TERM="dumb").stdout
        options = set(re.findall(r"^\W+(--[a-z-]+)", shown, re.MULTILINE)) - {"--help"}
        assert [option for option in options if option not in text and f"`{option}" not in general] == [], words
        assert text, f"docs/cli.md has no section for {words}"
    assert set(sections) == {" ".join(words) for words in _commands(bare)}


def _commands(bare: Run) -> list[tuple[str, ...]]:
    """The commands that the help names, those of groups with their group."""

    def listed(*words: str) -> list[str]:
        shown = bare(*words, "--help", COLUMNS="200", TERM="dumb").stdout
        return re.findall(r"^\W+([a-z][a-z-]+) {2,}", shown[shown.index("Commands") :], re.MULTILINE)

    groups = {"db", "journal", "token"}
    plain = [(name,) for name in listed() if name not in groups]
    return plain + [(group, name) for group in sorted(groups) for name in listed(group)]


def test_exit_codes_are_told_in_the_help_and_in_the_documentation(bare: Run) -> None:
    shown = " ".join(bare("--help", COLUMNS="200", TERM="dumb").stdout.split())
    page = (ROOT / "docs" / "cli.md").read_text()
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert re.search(rf"[ ;]{code} [a-z]", shown)
        assert re.search(rf"^\| {code} \|", page, re.MULTILINE)


def test_without_typer_the_program_says_in_one_line_what_to_install(bare: Run, tmp_path: Path) -> None:
    program = (
        "import importlib.util, sys; find = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'typer' else find(name, *rest);"
        "from jobledger.controller.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        'The command line is not installed; install it by: pip install "jobledger[controller]"'
    ]


def test_colours_are_for_terminals_that_want_them(site: Any) -> None:
    site.controller.submit("jobs.add", [1, 1])
    assert b"\x1b[" in _on_terminal(site, TERM="xterm-256color")
    assert b"\x1b[3" not in _on_terminal(site, TERM="xterm-256color", NO_COLOR="1")


def _on_terminal(site: Any, **environment: str) -> bytes:
    terminal, inner = pty.openpty()
    variables = site.environment_with(JOBLEDGER_APP="jobs:app", COLUMNS="140", **environment)
    process = subprocess.Popen([PROGRAM, "jobs"], env=variables, stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    shown = bytearray()
    try:
        while True:
            try:
                piece = os.read(terminal, 65_536)
            except OSError:
                break
            if not piece:
                break
            shown.extend(piece)
    finally:
        os.close(terminal)
        process.wait(30)
    assert process.returncode == 0, shown
    return bytes(shown)


# Processes


class Background:
    """A command that runs until it is stopped."""

    def __init__(self, words: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [PROGRAM, *words],
                env=environment,
                cwd=environment["JOBLEDGER_DATA_DIR"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.log.read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 30) -> int:
        return self.process.wait(timeout)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Background]]:
    started: list[Background] = []

    def begin(*words: str, environment: dict[str, str]) -> Background:
        background = Background(words, environment, tmp_path / f"background{len(started)}.log")
        started.append(background)
        return background

    yield begin
    for background in started:
        background.process.kill()
        background.process.wait()


@pytest.fixture
def machine(data_dir: Path) -> Iterator[dict[str, str]]:
    """The environment of a bare machine with the tests' application and an embedded broker; ends what it left."""
    apps = str(Path(__file__).parents[1] / "apps")
    yield {
        **os.environ,
        "JOBLEDGER_DATA_DIR": str(data_dir),
        "JOBLEDGER_APP": "jobs:app",
        "PYTHONPATH": apps,
    }
    for pid in _processes_of(data_dir):
        os.kill(pid, signal.SIGKILL)


def _processes_of(data_dir: Path) -> list[int]:
    """Every process that works for a data directory, the agent left out: it leaves by itself."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        ours = os.fsencode(data_dir) in command + environment
        if ours and state != "Z" and b"jobledger.history.agent" not in command:
            found.append(int(entry.name))
    return found


def test_up_runs_jobs_and_ends_after_them_when_asked(
    machine: dict[str, str], start: Callable[..., Background], data_dir: Path, tmp_path: Path, eventually: Any
) -> None:
    up = start("up", "--concurrency", "2", environment=machine)
    eventually(lambda: "Ready: worker1@" in up.text(), 30, up.text)
    eventually(lambda: _run(("doctor",), machine).returncode == 0, 30, "the doctor finds something serious")
    gate = tmp_path / "gate"
    held = data(_run(("submit", "jobs.wait_for", "--args", json.dumps([str(gate)]), "--json"), machine))["job_id"]
    eventually(lambda: data(_run(("show", held, "--json"), machine))["status"] == "RUNNING", 20)

    up.signal(signal.SIGTERM)
    eventually(lambda: "Stopping after the jobs that run now" in up.text())
    assert up.process.poll() is None
    gate.touch()

    assert up.wait() == 0, up.text()
    assert data(_run(("show", held, "--json"), machine))["status"] == "COMPLETED"
    eventually(lambda: not _processes_of(data_dir))


def test_a_second_ctrl_c_kills_what_runs(
    machine: dict[str, str], start: Callable[..., Background], data_dir: Path, eventually: Any
) -> None:
    up = start("up", "--concurrency", "1", environment=machine)
    eventually(lambda: "Ready" in up.text(), 30, up.text)
    job_id = data(_run(("submit", "jobs.nap", "--args", "[50]", "--json"), machine))["job_id"]
    eventually(lambda: data(_run(("show", job_id, "--json"), machine))["status"] == "RUNNING", 20)

    up.signal(signal.SIGINT)
    eventually(lambda: "Stopping" in up.text())
    up.signal(signal.SIGINT)

    assert up.wait() == 1, up.text()
    eventually(lambda: not _processes_of(data_dir))


def test_nothing_outlives_up_when_it_is_killed(
    machine: dict[str, str], start: Callable[..., Background], data_dir: Path, eventually: Any
) -> None:
    up = start("up", "--concurrency", "1", environment=machine)
    eventually(lambda: "Ready" in up.text(), 30, up.text)
    job_id = data(_run(("submit", "jobs.nap", "--args", "[50]", "--json"), machine))["job_id"]
    eventually(lambda: data(_run(("show", job_id, "--json"), machine))["status"] == "RUNNING", 20)

    up.signal(signal.SIGKILL)

    eventually(lambda: not _processes_of(data_dir), 15, lambda: str(_processes_of(data_dir)))
    again = start("up", "--concurrency", "1", environment=machine)
    eventually(lambda: data(_run(("show", job_id, "--json"), machine))["status"] == "FAILED", 30, again.text)
    assert "Interrupted" in data(_run(("show", job_id, "--json"), machine))["last_error"]
    again.signal(signal.SIGTERM)
    assert again.wait() == 0


def test_up_starts_a_worker_that_died_again(
    machine: dict[str, str], start: Callable[..., Background], eventually: Any
) -> None:
    up = start("up", "--concurrency", "1", environment=machine)
    eventually(lambda: "Ready" in up.text(), 30, up.text)
    children = Path(f"/proc/{up.process.pid}/task/{up.process.pid}/children")
    [worker] = [pid for pid in children.read_text().split() if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    os.kill(int(worker), signal.SIGKILL)

    eventually(lambda: up.text().count("Ready: worker1@") == 2, 30, up.text)
    assert "The worker has ended with exit code -9; it is started again." in up.text()
    up.signal(signal.SIGTERM)
    assert up.wait() == 0


def test_up_gives_up_a_worker_that_cannot_start(
    machine: dict[str, str], start: Callable[..., Background], data_dir: Path
) -> None:
    (data_dir / "shy.py").write_text("import sys\nassert 'worker' not in sys.argv\nfrom jobs import app\n")
    up = start("up", "--app", "shy:app", environment=machine)
    assert up.wait() == 1
    assert "'shy' cannot be imported: AssertionError" in up.text()
    assert "it cannot be started, its log says why" in up.text()


def test_up_with_a_wrong_setting_starts_nothing(machine: dict[str, str], data_dir: Path) -> None:
    assert "is no Celery application" in refusal(_run(("up", "--app", "jobs:nothing"), machine), 2)
    assert not (data_dir / "ledger.db").exists()
    assert not _processes_of(data_dir)


def test_a_worker_of_its_own_finishes_its_job_and_takes_celerys_options(
    site: Any, start: Callable[..., Background], tmp_path: Path, eventually: Any
) -> None:
    environment = site.environment_with(JOBLEDGER_APP="jobs:app")
    words = ("worker", "--name", "own@%h", "--pool", "threads", "--concurrency", "1", "--queues", "celery,more")
    worker = start(*words, "--loglevel", "info", "--", "--max-tasks-per-child", "5", environment=environment)
    eventually(lambda: re.search(r"own@\S+ ready", worker.text()), 30, worker.text)
    gate = tmp_path / "gate"
    job_id = site.controller.submit("jobs.wait_for", [str(gate)], queue="more")
    site.wait_for_status(job_id, JobStatus.RUNNING)

    worker.signal(signal.SIGTERM)
    gate.touch()

    assert worker.wait() == 0
    assert site.status(job_id) is JobStatus.COMPLETED
    assert site.store.get_job(job_id).worker_id.startswith("own@")


def test_workers_without_names_get_different_ones(site: Any, start: Callable[..., Background], eventually: Any) -> None:
    environment = site.environment_with(JOBLEDGER_APP="jobs:app")
    words = ("worker", "--pool", "solo")
    workers = [start(*words, environment=environment) for _ in range(2)]
    eventually(lambda: all(" ready" in worker.text() for worker in workers), 30)
    eventually(lambda: len(site.store.list_nodes()) == 2)
    assert {node.name.split("@")[0] for node in site.store.list_nodes()} == {"worker1", "worker2"}


def test_an_option_that_celery_refuses_is_one_sentence_and_code_2(site: Any, run: Run) -> None:
    result = run("worker", "--", "--nonsense")
    assert result.returncode == 2
    assert "Celery refuses the worker's options: No such option" in result.stderr
    assert "Traceback" not in result.stderr


def test_control_finishes_what_waits_for_a_leader(site: Any, start: Callable[..., Background], eventually: Any) -> None:
    worker = site.start_worker()
    job_id = site.controller.submit("jobs.nap", [60])
    site.wait_for_status(job_id, JobStatus.RUNNING)
    worker.kill_everything()
    eventually(site.store.list_jobs_of_ended_nodes)

    control = start("control", environment=site.environment_with(JOBLEDGER_APP="jobs:app"))

    assert site.wait_for_end(job_id).status is JobStatus.FAILED
    assert EventKind.ENDED in site.kinds(job_id)
    control.signal(signal.SIGTERM)
    assert control.wait() == 0
    assert site.store.lease_holder("leader") is None
