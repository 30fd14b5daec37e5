"""Ids are UUIDv7 and sort by the time they were made."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

from jobledger.history.ids import new_id


def milliseconds_of(text: str) -> int:
    return UUID(text).int >> 80


def test_an_id_is_a_version_seven_uuid_in_its_usual_form() -> None:
    for text in (new_id() for _ in range(1_000)):
        parsed = UUID(text)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, RFC_4122, text)


def test_an_id_says_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = milliseconds_of(new_id())
    assert before <= made <= time.time_ns() // 1_000_000


def test_ids_of_one_process_ascend_also_within_a_millisecond() -> None:
    ids = [new_id() for _ in range(5_000)]
    assert ids == sorted(ids)
    assert len({milliseconds_of(text) for text in ids}) < len(ids)


def test_ids_of_threads_and_processes_differ() -> None:
    code = "from jobledger.history.ids import new_id; print(*(new_id() for _ in range(2_000)))"
    programs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    with ThreadPoolExecutor(8) as threads:
        here = list(threads.map(lambda _: new_id(), range(10_000)))
    there = [text for program in programs for text in program.communicate()[0].split()]
    assert len(set(here + there)) == 14_000
