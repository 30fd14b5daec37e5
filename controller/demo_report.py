"""What became of the demo's jobs, in plain words, and whether it is as promised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import msgspec

from ..workers.priorities import Priority
from .demo_jobs import DemoJob, Role
from .job_view import JobViewModel


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """The demo's jobs as they ended, by id, and the first id of each role."""

    jobs: Mapping[str, tuple[DemoJob, JobViewModel]]
    by_role: Mapping[Role, str]
    #: From the first submission to the last end.
    seconds: float
    #: Whether the pictures are the user's; one of those may be damaged.
    own_pictures: bool

    def the(self, role: Role) -> JobViewModel:
        """Return the job of a role."""
        return self.jobs[self.by_role[role]][1]

    def pictures(self) -> list[JobViewModel]:
        """Return the jobs that were to run to their ends."""
        return [view for job, view in self.jobs.values() if job.role is Role.PICTURE]


def report(result: DemoResult, outputs: Path, kept: Path | None) -> tuple[list[str], list[str]]:
    """Return the summary, and what is not as promised."""
    return list(_summary(result, outputs, kept)), list(_broken_promises(result, outputs))


def _summary(result: DemoResult, outputs: Path, kept: Path | None) -> Iterator[str]:
    views = [view for _, view in result.jobs.values()]
    counts = {name: sum(view.status == name for view in views) for name in ("COMPLETED", "FAILED", "CANCELLED")}
    listed = ", ".join(f"{count} {name}" for name, count in counts.items())
    yield f"{len(views)} jobs in {result.seconds:.1f} s: {listed}."
    yield f"Waited before their start, on average: {_waits(result)}."
    waiting, album, missing = result.the(Role.WAITING), result.the(Role.ALBUM), result.the(Role.MISSING)
    yield f"Cancelled while it waited: {waiting.job_id}: {waiting.end_detail}; it never started."
    done = album.progress.done if album.progress else 0
    yield f"Cancelled while it ran: {album.job_id}: after {done:g} pictures {album.end_detail}."
    yield f"Failed: {missing.job_id}: {missing.last_error}"
    if Role.RETRY in result.by_role:
        retry = result.the(Role.RETRY)
        yield f"Retried, when the picture was there: {retry.job_id}: {retry.status}, with exactly the same arguments."
    for error in sorted({view.last_error or "" for view in result.pictures() if view.status == "FAILED"}):
        yield f"One of your pictures could not be used: {error}"
    yield f"Pictures: {_file_count(outputs)} files in {outputs}"
    if kept is not None:
        yield f"Everything is kept; look at it by: jobledger jobs --data-dir {kept}"
    else:
        yield "Broker, worker and ledger are gone. To keep the ledger and look at it: jobledger demo --keep DIR"


def _waits(result: DemoResult) -> str:
    parts = []
    for level in (Priority.HIGH, Priority.NORMAL, Priority.LOW):
        waits = [_wait(view) for job, view in result.jobs.values() if job.priority is level and view.started_at]
        if waits:
            parts.append(f"{level} {mean(waits):.1f} s")
    return ", ".join(parts)


def _wait(view: JobViewModel) -> float:
    if view.started_at is None or view.created_at is None:
        return 0.0
    return (view.started_at - view.created_at).total_seconds()


def _file_count(directory: Path) -> int:
    return sum(path.is_file() for path in directory.rglob("*"))


def _broken_promises(result: DemoResult, outputs: Path) -> Iterator[str]:
    yield from _broken_by_pictures(result, outputs)
    waiting, album, missing = result.the(Role.WAITING), result.the(Role.ALBUM), result.the(Role.MISSING)
    if waiting.status != "CANCELLED" or waiting.started_at is not None:
        yield f"The job that was cancelled while it waited is {waiting.status}, started: {waiting.started_at}."
    if album.status != "CANCELLED" or album.started_at is None:
        yield f"The job that was cancelled while it ran is {album.status}, started: {album.started_at}."
    if missing.status != "FAILED" or "the-missing-picture.jpg" not in (missing.last_error or ""):
        yield f"The job without its picture is {missing.status}: {missing.last_error}."
    if Role.RETRY not in result.by_role:
        yield "The job that failed was not retried."
        return
    retry = result.the(Role.RETRY)
    if retry.status != "COMPLETED" or retry.retry_of != missing.job_id:
        yield f"The retry is {retry.status}, a retry of {retry.retry_of}: {retry.last_error}."


def _broken_by_pictures(result: DemoResult, outputs: Path) -> Iterator[str]:
    for view in result.pictures():
        if view.status == "FAILED" and result.own_pictures:
            continue
        if view.status != "COMPLETED":
            yield f"Picture job {view.job_id} is {view.status}: {view.last_error}."
        elif not _has_its_files(view, outputs):
            yield f"Picture job {view.job_id} is COMPLETED without its file."


def _has_its_files(view: JobViewModel, outputs: Path) -> bool:
    result = msgspec.json.decode(view.result_ref or "{}")
    files = [Path(result["directory"], name) for name in result.get("files", ())]
    return bool(files) and all(file.is_file() and file.is_relative_to(outputs) for file in files)
