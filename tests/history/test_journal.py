"""The journal: whole lines, one file for each writer, a lock that tells its life, and no exception ever."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.journal import (
    CONTROL_PREFIX,
    Journal,
    JournalFile,
    home_of,
    journal_ends,
    journal_files,
    remove_unborn,
)

SEGMENT = 2**20

#: What the programs of these tests begin with: ``journal`` and ``put(number)``.
PRELUDE = """
import os, signal, subprocess, sys, threading, time
from pathlib import Path
from jobledger.history.event import EventKind, JobEvent, now
from jobledger.history.journal import Journal
directory = Path(sys.argv[1])
journal = Journal(directory, "boot", segment=2**20)
def put(number, text=None):
    return journal.append(JobEvent(kind=EventKind.LOG, job_id=str(number), at=now(), text=text))
def held():
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass
    return [link for link in links if link.startswith(str(directory)) and (".jsonl" in link or ".new" in link)]
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(directory: Path) -> Iterator[Journal]:
    journal = Journal(directory, "boot", segment=SEGMENT)
    yield journal
    journal.close()


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program with a journal in the directory; it is killed with the test."""
    programs: list[subprocess.Popen[str]] = []

    def start_it(code: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRELUDE + code, str(directory), *arguments]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        programs.append(subprocess.Popen(command, text=True, start_new_session=True, **pipes))
        return programs[-1]

    yield start_it
    for program in programs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.communicate()


@pytest.fixture
def run(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., str]:
    """Run such a program to its end, and return what it printed."""

    def run_it(code: str, *arguments: str) -> str:
        program = start(code, *arguments)
        printed, _ = program.communicate(timeout=60)
        assert program.returncode == 0
        return printed

    return run_it


@pytest.fixture
def small_disk(directory: Path) -> Iterator[Path]:
    """Make the journal directory a file system of 256 KB."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        if os.environ.get("CI"):
            pytest.fail("CI must be able to mount a small disk")
        pytest.skip("a small disk can only be mounted by root")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def event(number: int | str, text: str | None = None) -> JobEvent:
    return JobEvent(kind=EventKind.LOG, job_id=str(number), at=now(), text=text)


def lines_of(directory: Path) -> list[bytes]:
    """Every line of every journal; each of them must be whole."""
    content = b"".join(file.path.read_bytes() for file in journal_files(directory))
    assert content.endswith(b"\n") or not content
    return content.split(b"\n")[:-1]


def numbers_in(directory: Path) -> list[int]:
    """The numbers of the written events, in their order; each line must be an event."""
    lines = [line for line in lines_of(directory) if not line.startswith(CONTROL_PREFIX)]
    return [int(msgspec.json.decode(line, type=JobEvent).job_id) for line in lines]


def dropped_in(path: Path) -> list[int]:
    lines = path.read_bytes().splitlines()
    return [json.loads(line)["@dropped"] for line in lines if line.startswith(CONTROL_PREFIX)]


def fill(filler: Path, leave: int = 0) -> None:
    """Write until nothing more fits, then give a few bytes back."""
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (4_096, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(descriptor, b"x" * size)
        os.truncate(filler, os.fstat(descriptor).st_size - leave)
    finally:
        os.close(descriptor)


class TestWriting:
    def test_an_event_is_in_the_file_when_append_returns(self, directory: Path, journal: Journal) -> None:
        for number in range(3):
            written = event(number, "\U0001f30a \u2028 \x85\r\n")
            assert journal.append(written)
            last = lines_of(directory)[-1]
            assert msgspec.json.decode(last, type=JobEvent) == written
        assert len(journal_files(directory)) == 1

    def test_an_event_costs_one_write(self, directory: Path, run: Callable[..., str]) -> None:
        code = """
def writes():
    return int(Path("/proc/self/io").read_text().split("syscw: ")[1].split()[0])
journal.open()
before = writes()
for number in range(1_000):
    put(number)
print(writes() - before)
"""
        assert run(code) == "1000\n"
        assert numbers_in(directory) == list(range(1_000))

    def test_eight_threads_write_whole_lines_and_lose_none(self, directory: Path, journal: Journal) -> None:
        together = threading.Barrier(8)

        def write(thread: int) -> None:
            together.wait()
            for number in range(1_000):
                assert journal.append(event(thread * 1_000 + number, "x" * (number % 300)))

        threads = [threading.Thread(target=write, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(numbers_in(directory)) == list(range(8_000))

    def test_a_very_large_event_is_one_line(self, directory: Path, journal: Journal) -> None:
        text = "x" * (20 * 2**20)
        assert journal.append(event(1, text))
        assert journal.append(event(2))
        first, second = lines_of(directory)
        assert msgspec.json.decode(first, type=JobEvent).text == text
        assert msgspec.json.decode(second, type=JobEvent).job_id == "2"

    def test_only_its_user_can_read_it(self, directory: Path, journal: Journal) -> None:
        journal.append(event(1))
        [file] = journal_files(directory)
        assert file.path.stat().st_mode & 0o777 == 0o600
        assert directory.stat().st_mode & 0o777 == 0o700

    def test_with_fsync_it_is_the_same_file(self, directory: Path) -> None:
        journal = Journal(directory, "boot", segment=SEGMENT, fsync=True)
        assert all(journal.append(event(number)) for number in range(10))
        journal.close()
        assert numbers_in(directory) == list(range(10))


class TestSegments:
    def test_a_full_file_is_followed_by_another(self, directory: Path) -> None:
        journal = Journal(directory, "boot", segment=4_096)
        assert all(journal.append(event(number, "x" * 100)) for number in range(200))
        sizes = [file.size() for file in journal_files(directory)]
        assert len(sizes) > 5
        assert max(sizes) < 4_096 + 300
        assert numbers_in(directory) == list(range(200))
        assert [file.writer_is_gone() for file in journal_files(directory)] == [True] * (len(sizes) - 1) + [False]
        journal.close()

    def test_a_boot_is_never_seen_without_a_lock(self, directory: Path, start: Any, eventually: Any) -> None:
        """Between two segments, too: else a node that lives would count as gone."""
        start("journal._segment = 1\nfor number in range(2_000): put(number)\nprint('done', flush=True)\ninput()")
        eventually(lambda: journal_files(directory))
        looks = 0
        while len(journal_files(directory)) < 1_900:
            newest = journal_files(directory)[-1]
            looks += 1
            if newest.writer_is_gone():
                # It may have been left since it was listed; its successor stands there then.
                assert journal_files(directory)[-1].name > newest.name
        assert looks > 3

    def test_while_no_new_file_can_be_made_the_full_one_goes_on(self, directory: Path, tmp_path: Path) -> None:
        journal = Journal(directory, "boot", segment=1)
        assert journal.append(event(1))
        directory.rename(tmp_path / "moved")
        directory.touch()
        assert journal.append(event(2))
        journal.close()
        assert numbers_in(tmp_path / "moved") == [1, 2]

    def test_after_a_close_the_next_event_starts_a_new_file(self, directory: Path, journal: Journal) -> None:
        journal.append(event(1))
        journal.close()
        [first] = journal_files(directory)
        assert first.writer_is_gone()
        journal.append(event(2))
        assert numbers_in(directory) == [1, 2]
        assert [file.writer_is_gone() for file in journal_files(directory)] == [True, False]

    def test_open_makes_the_file_before_the_first_event(self, directory: Path, journal: Journal) -> None:
        journal.open()
        journal.open()
        [file] = journal_files(directory)
        assert (file.size(), file.writer_is_gone(), file.boot_id) == (0, False, "boot")
        assert journal_ends(directory, "boot") == {file.name: 0}
        assert journal_ends(directory, "boo") == {}


class TestTheLock:
    def test_is_held_for_life_and_released_by_kill_9(self, directory: Path, start: Any, eventually: Any) -> None:
        writer = start("put(1)\nprint('written', flush=True)\ninput()")
        assert writer.stdout.readline() == "written\n"
        [file] = journal_files(directory)
        assert not file.writer_is_gone()
        writer.kill()
        eventually(file.writer_is_gone)
        assert numbers_in(directory) == [1]

    def test_is_not_inherited_by_a_forked_child_which_writes_a_file_of_its_own(
        self, directory: Path, start: Any, eventually: Any
    ) -> None:
        code = """
put(1)
if os.fork() == 0:
    print(len(held()), put(2), len(held()), journal.dropped, flush=True)
    signal.pause()
signal.pause()
"""
        parent = start(code)
        assert parent.stdout.readline() == "0 True 1 0\n"
        of_parent, of_child = journal_files(directory)
        assert not of_parent.writer_is_gone()
        parent.kill()
        eventually(of_parent.writer_is_gone)
        assert not of_child.writer_is_gone()
        assert sorted(numbers_in(directory)) == [1, 2]

    def test_is_not_inherited_by_a_program_that_a_child_starts(
        self, directory: Path, start: Any, eventually: Any
    ) -> None:
        code = """
put(1)
if os.fork() == 0:
    put(2)
    subprocess.Popen(["sleep", "60"])
    print("started", flush=True)
    signal.pause()
subprocess.Popen(["sleep", "60"], close_fds=False)
signal.pause()
"""
        parent = start(code)
        assert parent.stdout.readline() == "started\n"
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in children}
        parent.kill()
        [python] = [int(pid) for pid, name in names.items() if name != "sleep"]
        os.kill(python, signal.SIGKILL)
        eventually(lambda: all(file.writer_is_gone() for file in journal_files(directory)))
        assert [name for name in names.values() if name == "sleep"] == ["sleep"]

    def test_is_not_inherited_by_a_fork_in_the_moment_of_opening(self, run: Callable[..., str]) -> None:
        code = """
stop = threading.Event()
def reopen():
    while not stop.is_set():
        journal.close()
        journal.open()
thread = threading.Thread(target=reopen)
thread.start()
leaked = 0
for _ in range(400):
    pid = os.fork()
    if pid == 0:
        os._exit(len(held()))
    leaked += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
stop.set()
thread.join()
print(leaked)
"""
        assert run(code) == "0\n"

    def test_of_a_thread_does_not_stop_a_child_that_is_forked_meanwhile(
        self, directory: Path, run: Callable[..., str]
    ) -> None:
        code = """
stop = threading.Event()
def write():
    while not stop.is_set():
        put(0)
threads = [threading.Thread(target=write) for _ in range(3)]
for thread in threads:
    thread.start()
for number in range(1, 201):
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        os._exit(0 if put(number) else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
"""
        run(code)
        assert sorted(set(numbers_in(directory))) == list(range(201))
        assert all(count == 1 for number, count in Counter(numbers_in(directory)).items() if number)


class TestSignals:
    def test_a_handler_may_append_in_the_middle_of_an_append(self, directory: Path, run: Callable[..., str]) -> None:
        code = """
journal._segment = 2_000
handled = 0
def handle(*_):
    global handled
    handled += 1
    assert put(1_000_000 + handled)
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
number = 0
while handled < 2_000:
    assert put(number)
    number += 1
signal.setitimer(signal.ITIMER_REAL, 0)
journal.close()
print(number, handled, len(held()))
"""
        number, handled, held = map(int, run(code).split())
        assert held == 0
        wanted = [*range(number), *range(1_000_001, 1_000_001 + handled)]
        assert sorted(numbers_in(directory)) == wanted

    def test_a_handler_may_raise_in_the_middle_of_an_append(self, directory: Path, run: Callable[..., str]) -> None:
        """As Celery's soft time limit does: the event is there once or not at all, and the journal goes on."""
        code = """
journal._segment = 2_000
class Limit(Exception):
    pass
def handle(*_):
    raise Limit
signal.signal(signal.SIGALRM, handle)
number = interrupted = 0
while interrupted < 1_000:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.00002 + number % 7 * 0.00001)
        while True:
            number += 1
            put(number)
    except Limit:
        interrupted += 1
assert put(0)
print(number, journal.dropped, len(held()))
"""
        number, dropped, held = map(int, run(code).split())
        written = numbers_in(directory)
        assert (dropped, held) == (0, 1)
        assert len(set(written)) == len(written)
        missing = set(range(number + 1)) - set(written)
        assert len(missing) <= 1_000

    def test_a_handler_that_says_goodbye_closes_the_file_after_the_event(
        self, directory: Path, run: Callable[..., str]
    ) -> None:
        code = """
closed = 0
def handle(*_):
    global closed
    closed += 1
    journal.close()
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
number = 0
while closed < 300:
    assert put(number)
    number += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(number)
"""
        number = int(run(code))
        assert sorted(numbers_in(directory)) == list(range(number))


class TestWhatCannotBeWritten:
    def test_a_full_disk_drops_events_whole_and_counts_them_before_the_next_one(
        self, small_disk: Path, journal: Journal
    ) -> None:
        assert journal.append(event(1))
        fill(small_disk / "filler", leave=0)
        while journal.append(event(2, "x" * 997)):
            pass
        assert not journal.append(event(3, "x" * 8_000))
        assert journal.dropped == 2
        (small_disk / "filler").unlink()
        assert journal.append(event(4))
        assert journal.append(event(5))
        [file] = journal_files(small_disk)
        lines = file.path.read_bytes().splitlines()
        assert json.loads(lines[-3]) == {"@dropped": 2}
        assert [number for number in numbers_in(small_disk) if number != 2] == [1, 4, 5]
        journal.close()

    def test_a_short_write_is_cut_back(self, small_disk: Path, journal: Journal) -> None:
        """An event larger than the rest of the disk is written in part, and then not at all."""
        assert journal.append(event(1))
        [file] = journal_files(small_disk)
        size = file.size()
        assert not journal.append(event(2, "x" * 2**20))
        assert file.size() == size
        assert journal.append(event(3))
        assert numbers_in(small_disk) == [1, 3]
        assert dropped_in(file.path) == [1]
        journal.close()

    def test_a_count_that_a_reader_may_have_seen_is_never_cut_off_again(
        self, small_disk: Path, journal: Journal
    ) -> None:
        """The count goes out whole before the event behind it is torn, so it stays."""
        assert journal.append(event(1))
        [file] = journal_files(small_disk)
        for _ in range(3):
            assert not journal.append(event(2, "x" * 2**20))
        assert dropped_in(file.path) == [1, 2]
        assert numbers_in(small_disk) == [1]

    def test_a_file_size_limit_starts_the_next_file(self, directory: Path, run: Callable[..., str]) -> None:
        code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
print(all([put(number, "x" * 77) for number in range(300)]), journal.dropped)
"""
        assert run(code) == "True 0\n"
        assert numbers_in(directory) == list(range(300))
        assert all(5_000 < file.size() <= 10_000 for file in journal_files(directory)[:-1])

    def test_an_event_beyond_the_file_size_limit_is_dropped_alone(
        self, directory: Path, run: Callable[..., str]
    ) -> None:
        code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
print(put(1), put(2, "x" * 20_000), put(3), put(4), journal.dropped)
"""
        assert run(code) in {"True False True True 1\n", "True False False False 3\n"}
        assert set(numbers_in(directory)) <= {1, 3, 4}

    def test_what_json_cannot_say_is_dropped_and_counted(self, directory: Path, journal: Journal) -> None:
        assert not journal.append(event(1, "half a pair: \ud83c"))
        assert not journal.append(event(2, text=object()))  # type: ignore[arg-type]
        assert journal.append(event(3))
        assert journal.dropped == 2
        assert json.loads(lines_of(directory)[0]) == {"@dropped": 2}
        assert numbers_in(directory) == [3]

    def test_each_drop_is_told_in_one_file_only(self, directory: Path) -> None:
        """So that the counts of a process's files add up."""
        journal = Journal(directory, "boot", segment=1)
        for number in range(4):
            assert not journal.append(event(number, "\ud83c"))
            assert journal.append(event(number))
        journal.append(event(9, "\ud83c"))
        journal.close()
        assert sum(max(dropped_in(file.path), default=0) for file in journal_files(directory)) == 5

    def test_a_count_in_one_file_ascends(self, directory: Path, journal: Journal) -> None:
        for number in range(3):
            journal.append(event(number, "\ud83c"))
            journal.append(event(number))
        [file] = journal_files(directory)
        assert dropped_in(file.path) == [1, 2, 3]

    def test_a_closed_journal_has_told_its_drops(self, directory: Path, journal: Journal) -> None:
        journal.append(event(1, "\ud83c"))
        journal.close()
        [file] = journal_files(directory)
        assert dropped_in(file.path) == [1]

    def test_it_is_logged_once_a_minute(self, journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
        for number in range(50):
            journal.append(event(number, "\ud83c"))
        [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert "incomplete: 1 events" in record.getMessage()

    def test_a_directory_that_cannot_be_made_is_tried_again(
        self, directory: Path, journal: Journal, eventually: Any
    ) -> None:
        directory.touch()
        assert not any(journal.append(event(number)) for number in range(100))
        with pytest.raises(FileExistsError):
            journal.open()
        assert journal.dropped == 100
        directory.unlink()
        eventually(lambda: journal.append(event(1_000)))
        [file] = journal_files(directory)
        assert dropped_in(file.path) == [journal.dropped]

    def test_a_deleted_file_is_noticed_within_a_second(
        self, directory: Path, journal: Journal, eventually: Any
    ) -> None:
        assert journal.append(event(1))
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
        eventually(lambda: journal.append(event(2)) and journal_files(directory), timeout=5)
        assert set(numbers_in(directory)) == {2}

    def test_a_descriptor_that_somebody_closed_costs_no_event(self, directory: Path, run: Callable[..., str]) -> None:
        """As programs do that make a daemon of themselves."""
        code = "put(1)\nos.closerange(3, 100)\nprint(put(2), put(3), journal.dropped)"
        assert run(code) == "True True 0\n"
        assert numbers_in(directory) == [1, 2, 3]


class TestTheDirectory:
    def test_without_journals_or_not_made_yet_is_empty(self, directory: Path) -> None:
        assert journal_files(directory) == []
        assert journal_ends(directory, "boot") == {}
        directory.mkdir()
        (directory / "agent.lock").touch()
        assert journal_files(directory) == []

    def test_lists_the_oldest_journal_of_a_boot_first(self, directory: Path) -> None:
        journals = [Journal(directory, "boot", segment=SEGMENT) for _ in range(20)]
        made = []
        for journal in journals:
            journal.open()
            made += [file.name for file in journal_files(directory) if file.name not in made]
        assert [file.name for file in journal_files(directory, "boot")] == made
        for journal in journals:
            journal.close()

    def test_has_one_id_for_all_who_ask(self, directory: Path) -> None:
        together = threading.Barrier(8)
        homes = []

        def ask() -> None:
            together.wait()
            homes.append(home_of(directory))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(homes)) == 1
        assert len(homes[0]) >= 32
        assert [path.name for path in directory.iterdir()] == ["home"]

    def test_loses_the_files_whose_writers_died_before_they_named_them(self, directory: Path) -> None:
        directory.mkdir()
        for name, age in (("boot.old.new", 3_600), ("boot.young.new", 1), ("boot.done.jsonl", 3_600)):
            (directory / name).touch()
            os.utime(directory / name, (0, now().timestamp() - age))
        remove_unborn(directory)
        assert {path.name for path in directory.iterdir()} == {"boot.young.new", "boot.done.jsonl"}


class TestReading:
    def test_gives_whole_lines_only(self, tmp_path: Path) -> None:
        path = tmp_path / "boot.x.jsonl"
        path.write_bytes(b"one\ntwo\nthr")
        file = JournalFile(path)
        assert file.read(0, 1_000) == b"one\ntwo\n"
        assert file.read(4, 1_000) == b"two\n"
        assert file.read(8, 1_000) == b""
        assert file.read_tail(8) == b"thr"

    def test_gives_about_as_much_as_asked_but_never_less_than_a_line(self, tmp_path: Path) -> None:
        path = tmp_path / "boot.x.jsonl"
        path.write_bytes(b"x" * 1_000 + b"\n" + b"short\n" * 100)
        file = JournalFile(path)
        assert file.read(0, 10).startswith(b"x" * 1_000 + b"\n")
        assert len(file.read(0, 10)) <= 1_011
        assert file.read(1_001, 20) == b"short\n" * 3

    def test_a_file_that_is_gone_has_no_size(self, tmp_path: Path) -> None:
        assert JournalFile(tmp_path / "boot.x.jsonl").size() == 0
        JournalFile(tmp_path / "boot.x.jsonl").delete()
