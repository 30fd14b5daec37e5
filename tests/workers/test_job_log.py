"""What one run may write to its job's log."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from jobledger.history.event_batch import LOG_LINES
from jobledger.workers.job_log import HELD_LINES, LINE_LENGTH, LINE_RATE, JobLog, LogLine


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def written() -> list[LogLine]:
    return []


@pytest.fixture
def log(written: list[LogLine], clock: Clock) -> JobLog:
    return JobLog(written.append, clock)


def texts(written: list[LogLine]) -> list[str]:
    return [line.text for line in written]


def test_a_text_becomes_lines_with_its_level_and_its_moment(log: JobLog, written: list[LogLine]) -> None:
    log.add("one\ntwo\n" + "x" * 5_000, "WARNING", at=0.5)

    at = datetime.fromtimestamp(0.5, UTC)
    assert written == [LogLine(at, "WARNING", text) for text in ("one", "two", "x" * LINE_LENGTH)]


def test_a_secret_is_hidden_before_a_line_is_cut(log: JobLog, written: list[LogLine]) -> None:
    log.add("x" * (LINE_LENGTH - 20) + " redis://:hunter2@cache/0", "INFO")
    log.add("-----BEGIN RSA PRIVATE KEY-----\nMIIEabcdefgh\n-----END RSA PRIVATE KEY-----", "INFO")

    assert not any("hunter" in text or "MIIE" in text for text in texts(written))


def test_a_run_that_writes_no_more_than_is_kept_loses_nothing(log: JobLog, written: list[LogLine]) -> None:
    for number in range(LOG_LINES):
        log.add(str(number), "INFO")

    assert texts(written) == [str(number) for number in range(LOG_LINES)]


def test_a_flood_writes_its_burst_then_the_newest_lines_and_says_how_many_are_left_out(
    log: JobLog, written: list[LogLine]
) -> None:
    for number in range(100_000):
        log.add(str(number), "INFO")
    assert texts(written) == [str(number) for number in range(LOG_LINES)]

    log.flush()
    gap, *newest = written[LOG_LINES:]
    assert gap.text.startswith(f"({100_000 - LOG_LINES - HELD_LINES:,} lines are left out here")
    assert texts(newest) == [str(number) for number in range(100_000 - HELD_LINES, 100_000)]


def test_a_flood_that_goes_on_writes_at_its_rate(log: JobLog, written: list[LogLine], clock: Clock) -> None:
    seconds = 100
    for number in range(200_000):
        clock.seconds = seconds * number / 200_000
        log.add(str(number), "INFO")

    assert len(written) <= LOG_LINES + seconds * LINE_RATE + HELD_LINES + 2
    assert len(written) >= LOG_LINES + (seconds - 10) * LINE_RATE
    numbers = [int(text) for text in texts(written) if not text.startswith("(")]
    assert numbers == sorted(set(numbers))
    left_out = sum(int(text[1:].split()[0].replace(",", "")) for text in texts(written) if text.startswith("("))
    log.flush()
    left_out += sum(int(text[1:].split()[0].replace(",", "")) for text in texts(written[-HELD_LINES - 1 :])[:1])
    assert left_out + sum(not text.startswith("(") for text in texts(written)) == 200_000


@pytest.mark.parametrize("text", ["\n" * 100_000, "x\n" * 5_000, "y" * 10_000_000])
def test_one_long_text_is_cut_and_says_so(log: JobLog, written: list[LogLine], text: str) -> None:
    log.add(text, "INFO")

    assert len(written) <= LOG_LINES
    assert written[-1].text == "(the rest of this text is left out)"


def test_lines_of_long_texts_count_each(log: JobLog, written: list[LogLine]) -> None:
    for _ in range(1_000):
        log.add("x\n" * 900, "INFO")
    log.flush()

    assert len(written) < 4 * LOG_LINES
