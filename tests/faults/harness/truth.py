"""The truth: lines that jobs and senders write themselves, on a disk that no fault touches."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from enum import StrEnum
from pathlib import Path

import msgspec


class Act(StrEnum):
    """What somebody did."""

    #: A run's function began.
    START = "start"
    #: It is about to return.
    END = "end"
    #: It is about to raise for good.
    RAISE = "raise"
    #: It is about to raise what Celery retries.
    RAISE_AGAIN = "raise again"
    #: It saw the cancel and is about to stop.
    STOP = "stop"
    #: It is about to kill its own process.
    DIE = "die"
    #: A sender is about to submit; what came of it follows.
    SENDING = "sending"
    SENT = "sent"
    REFUSED = "refused"
    #: Somebody's cancel was accepted.
    CANCELLED = "cancelled"
    #: Somebody's cancel came too late.
    CANCEL_REFUSED = "cancel refused"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line; ``at`` is of the monotonic clock, which all processes of a machine share."""

    job_id: str
    act: Act
    at: float
    pid: int
    run_id: str | None = None
    retries: int = 0
    node: str | None = None
    text: str = ""


class TruthWriter:
    """Writes the lines of this process, each of them to the disk before it goes on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory
        self._pid = 0

    def write(self, job_id: str, act: Act, **fields: str | int | None) -> None:
        """Write one line."""
        line = Line(job_id=job_id, act=act, at=time.monotonic(), pid=os.getpid(), **fields)  # type: ignore[arg-type]
        with self._own_path().open("ab", buffering=0) as file:
            file.write(msgspec.json.encode(line) + b"\n")
            os.fsync(file.fileno())

    def _own_path(self) -> Path:
        """A forked child writes a file of its own."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._path = self._directory / f"{self._pid}.{time.monotonic_ns()}.jsonl"
        return self._path


class Run(msgspec.Struct, kw_only=True):
    """One run of a job's function, as it wrote it."""

    start: Line
    #: Its last words; a killed run has none.
    last: Line | None = None
    #: Whether its process never wrote anything afterwards.
    is_last_of_process: bool = False

    @property
    def act(self) -> Act:
        """The last thing that it did."""
        return self.last.act if self.last else Act.START


class JobTruth(msgspec.Struct, kw_only=True):
    """Everything that is true of one job."""

    runs: list[Run] = msgspec.field(default_factory=list)
    #: What its sender and whoever cancelled it wrote.
    sending: list[Line] = msgspec.field(default_factory=list)

    def did(self, act: Act) -> bool:
        """Whether its sender, or whoever cancelled it, wrote this."""
        return any(line.act is act for line in self.sending)

    @property
    def finished(self) -> list[Run]:
        """The runs that returned."""
        return [run for run in self.runs if run.act is Act.END]

    @property
    def has_double_run(self) -> bool:
        """Whether one attempt ran more than once."""
        attempts = [run.start.retries for run in self.runs]
        return len(set(attempts)) < len(attempts)


def read_truth(directory: Path) -> dict[str, JobTruth]:
    """Return what was written, by job."""
    truths: dict[str, JobTruth] = defaultdict(JobTruth)
    for path in sorted(directory.glob("*.jsonl")):
        _read_process(truths, _lines(path))
    for truth in truths.values():
        truth.runs.sort(key=lambda run: run.start.at)
        truth.sending.sort(key=lambda line: line.at)
    return truths


def _lines(path: Path) -> list[Line]:
    return [msgspec.json.decode(text, type=Line) for text in path.read_bytes().split(b"\n")[:-1]]


def _read_process(truths: dict[str, JobTruth], lines: list[Line]) -> None:
    run: Run | None = None
    for line in lines:
        if line.act is Act.START:
            run = Run(start=line)
            truths[line.job_id].runs.append(run)
        elif line.run_id is None:
            truths[line.job_id].sending.append(line)
        elif run is not None:
            run.last = line
    if run is not None:
        run.is_last_of_process = True
