"""The demo: a broker, a worker, a leader and a ledger of its own, thirty real jobs, and what became of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Protocol

from ..errors import JobledgerError, SettingsError
from ..history.agent_link import ask_agent
from ..settings import ENVIRONMENT_PREFIX, FILE_VARIABLE, Settings, load_settings
from ..workers.pipeline.sample_pictures import make_sample_pictures
from .application import load_application, with_broker
from .demo_jobs import DemoJob, Role, demo_jobs, pictures_in
from .demo_report import DemoResult, report
from .embedded_broker import EmbeddedBroker
from .job_history_service import JobHistoryService
from .job_view import JobViewModel
from .leadership import leading
from .worker_process import WorkerOptions, WorkerProcess

_CONCURRENCY: Final = 2
_INTERVAL: Final = 0.15
#: Seconds for everything; far more than thirty jobs need.
_PATIENCE: Final = 240.0
_STOP_TIMEOUT: Final = 30.0
_AGENT_TIMEOUT: Final = 10.0
#: Pictures that the album has done when it is cancelled.
_ALBUM_START: Final = 3

Jobs = Mapping[str, tuple[DemoJob, JobViewModel]]


class DemoFailed(JobledgerError):
    """Raised when the demo cannot go on."""


class Screen(Protocol):
    """Where the demo is shown."""

    def say(self, sentence: str) -> None:
        """Show what happens now."""
        ...

    def show(self, jobs: Jobs) -> None:
        """Show how the jobs stand."""
        ...


def run_demo(pictures: Path | None, keep: Path | None, screen: Screen) -> tuple[list[str], list[str]]:
    """Run the demo and return its summary, and the promises that were not kept: none, if all is well.

    Starts processes and ends them all, also when it is interrupted. The pictures are only read.

    Raises:
        SettingsError: when the folder of pictures, the directory to keep or the broker's program cannot be used.
        DemoFailed: when the jobs do not end.
    """
    chosen = pictures_in(pictures.expanduser().absolute()) if pictures is not None else None
    with _place(keep) as place, _interruptible():
        samples = make_sample_pictures(place / "samples", 12)
        settings = _isolate(place, [place / "samples", *([pictures.expanduser().absolute()] if pictures else ())])
        with _running(settings, place, screen) as (service, worker):
            result = _Show(service, worker, screen, place, chosen is not None).play(chosen or samples, samples)
        return report(result, settings.outputs, keep)


# -- the place


@contextmanager
def _place(keep: Path | None) -> Iterator[Path]:
    """The demo's own directory; without ``keep`` only the finished pictures stay."""
    if keep is not None:
        yield _made(keep.expanduser().absolute())
        return
    place = Path(tempfile.mkdtemp(prefix="jobledger-demo-"))
    try:
        yield place
    finally:
        _remove_all_but_outputs(place)


def _made(directory: Path) -> Path:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise SettingsError(f"--keep: {directory} is not empty; name a new directory.")
    except OSError as error:
        raise SettingsError(f"--keep: {directory} cannot be used: {error.strerror}.") from None
    return directory


def _remove_all_but_outputs(place: Path) -> None:
    for entry in place.iterdir():
        if entry.name == "outputs":
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        place.rmdir()


def _isolate(place: Path, input_dirs: list[Path]) -> Settings:
    """Nothing that is set on this machine may lead the demo to a broker or a ledger that is in use."""
    for name in [name for name in os.environ if name.startswith((ENVIRONMENT_PREFIX, "CELERY_"))]:
        del os.environ[name]
    (place / "late").mkdir()
    listed = ", ".join(_toml(path) for path in [*input_dirs, place / "late"])
    file = place / "jobledger.toml"
    file.write_text(f"data_dir = {_toml(place)}\ninput_dirs = [{listed}]\n", encoding="utf-8")
    os.environ[FILE_VARIABLE] = str(file)
    return load_settings()


def _toml(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)


# -- the processes


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and the terminal's end are an interrupt like Ctrl-C, so that everything is cleaned up."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _running(settings: Settings, place: Path, screen: Screen) -> Iterator[tuple[JobHistoryService, WorkerProcess]]:
    screen.say(f"Starting a broker, a worker with {_CONCURRENCY} processes, and a ledger in {place}")
    with EmbeddedBroker(settings.data_dir) as broker:
        app = load_application(with_broker(settings, broker.url))
        worker = WorkerProcess(
            WorkerOptions(name="demo@%h", concurrency=_CONCURRENCY, loglevel="warning"), place / "worker.log"
        )
        try:
            with closing(JobHistoryService.connect(app)) as service, leading(app):
                yield service, worker
                worker.stop()
                worker.wait(_STOP_TIMEOUT)
        finally:
            worker.kill()
            worker.close()
            _end_agent(settings)


def _end_agent(settings: Settings) -> None:
    """The agent would leave by itself a few seconds later; the demo leaves nothing running."""
    status = ask_agent(settings, "status")
    if status is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(status["pid"], signal.SIGTERM)
        deadline = time.monotonic() + _AGENT_TIMEOUT
        while time.monotonic() < deadline:
            os.kill(status["pid"], 0)
            time.sleep(0.02)


# -- the show


class _Show:
    """Submits the jobs, does with them what their roles say, and watches them to their ends."""

    def __init__(
        self, service: JobHistoryService, worker: WorkerProcess, screen: Screen, place: Path, own_pictures: bool
    ) -> None:
        self._service = service
        self._worker = worker
        self._log = place / "worker.log"
        self._screen = screen
        self._missing = place / "late" / "the-missing-picture.jpg"
        self._own_pictures = own_pictures
        self._jobs: dict[str, DemoJob] = {}
        self._by_role: dict[Role, str] = {}

    def play(self, pictures: list[Path], samples: list[Path]) -> DemoResult:
        started = time.monotonic()
        self._submit_all(demo_jobs(pictures, samples, self._missing))
        self._cancel(Role.WAITING, "changed my mind")
        views = self._watch(samples[0], started + _PATIENCE)
        return DemoResult(
            jobs={job_id: (job, views[job_id]) for job_id, job in self._jobs.items()},
            by_role=self._by_role,
            seconds=time.monotonic() - started,
            own_pictures=self._own_pictures,
        )

    def _submit_all(self, jobs: list[DemoJob]) -> None:
        for job in jobs:
            job_id = self._service.submit_pipeline_job(job.config, priority=job.priority, tags=["demo", job.role])
            self._remember(job_id, job)
        self._screen.say(f"Submitted {len(self._jobs)} picture jobs of high, normal and low priority")

    def _remember(self, job_id: str, job: DemoJob) -> None:
        self._jobs[job_id] = job
        self._by_role.setdefault(job.role, job_id)

    def _watch(self, found: Path, deadline: float) -> dict[str, JobViewModel]:
        album_cancelled = False
        while True:
            views = {job_id: self._service.get_job(job_id) for job_id in self._jobs}
            self._screen.show({job_id: (self._jobs[job_id], view) for job_id, view in views.items()})
            if not album_cancelled and self._album_runs(views):
                self._cancel(Role.ALBUM, "too long")
                album_cancelled = True
            if Role.RETRY not in self._by_role and views[self._by_role[Role.MISSING]].status == "FAILED":
                self._retry_missing(found)
            elif not any(view.is_active for view in views.values()):
                return views
            self._require_progress(deadline)
            time.sleep(_INTERVAL)

    def _require_progress(self, deadline: float) -> None:
        if self._worker.exit_code() is not None:
            *_, last = ["nothing", *self._log.read_text(errors="replace").splitlines()]
            raise DemoFailed(f"The worker has ended with exit code {self._worker.exit_code()}; it said last: {last}")
        if time.monotonic() > deadline:
            raise DemoFailed(f"The jobs did not end within {_PATIENCE:g} s; with --keep DIR, {self._log.name} stays.")

    def _album_runs(self, views: Mapping[str, JobViewModel]) -> bool:
        view = views[self._by_role[Role.ALBUM]]
        return view.status == "RUNNING" and view.progress is not None and view.progress.done >= _ALBUM_START

    def _cancel(self, role: Role, reason: str) -> None:
        self._screen.say(f"Cancelling {self._jobs[self._by_role[role]].title!r}: {reason}")
        self._service.cancel_job(self._by_role[role], actor="demo", reason=reason)

    def _retry_missing(self, found: Path) -> None:
        shutil.copyfile(found, self._missing)
        failed = self._by_role[Role.MISSING]
        self._screen.say(f"{self._missing.name!r} has turned up; the job that failed is sent again, exactly as it was")
        job = self._jobs[failed]
        again = DemoJob(role=Role.RETRY, title=f"{job.title} again", priority=job.priority, config=job.config)
        self._remember(self._service.retry_job(failed, actor="demo"), again)
