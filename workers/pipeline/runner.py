"""Runs a pipeline: picture by picture through all of its stages."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ...settings import Settings
from .config import PipelineConfig
from .errors import PipelineProducedNothing
from .output_directory import OutputDirectory
from .registry import StageRegistry
from .stage import JobHandle, Picture, StageContext

_Pictures = Generator[Picture, None, None]

#: How much of the result reference the names of files may take, in bytes; the rest is only counted.
_NAMES_BYTES = 2_000


class PipelineRunner:
    """Runs pipelines for one job.

    Args:
        stages: Where the stages come from.
        settings: Where pictures may be read and written on this worker.
        job: Whom to ask about a cancel and to tell the progress.
    """

    def __init__(self, stages: StageRegistry, settings: Settings, job: JobHandle) -> None:
        self._stages = stages
        self._settings = settings
        self._job = job

    def run(self, config: PipelineConfig) -> dict[str, Any]:
        """Run all stages and return a small JSON-able reference to what came out, at most a few KB.

        The job's cancel token is looked at before and after each stage of each picture, so that what an
        interrupted stage still gives is dropped.

        Raises:
            JobCancelled: after somebody cancelled the job.
            PipelineProducedNothing: when no file came out.
            PipelineError: when a picture or a stage fails.
        """
        started = time.monotonic()
        self._job.raise_if_cancelled()
        context = self._context(config)
        pictures = self._drain(config, context)
        _require_files(config, context, pictures)
        return self._result(config, context, pictures, time.monotonic() - started)

    def _context(self, config: PipelineConfig) -> StageContext:
        collection = config.output.directory if config.output else None
        output = OutputDirectory(self._settings.outputs, collection, self._job.job_id)
        return StageContext(config=config, settings=self._settings, job=self._job, output=output)

    def _drain(self, config: PipelineConfig, context: StageContext) -> int:
        report = _Report(self._job, context, [stage.name for stage in config.stages])
        report.begin()
        with closing(self._chain(config, context, report)) as finished:
            for picture in finished:
                picture.close()
        return report.done

    def _chain(self, config: PipelineConfig, context: StageContext, report: _Report) -> _Pictures:
        pictures: _Pictures = _nothing()
        for number, asked in enumerate(config.stages, start=1):
            stage = self._stages.create(asked.name)
            settings = stage.Settings.model_validate(asked.settings)
            pictures = self._watched(stage.run(pictures, settings, context), number, report)
        return pictures

    def _watched(self, pictures: Iterable[Picture], number: int, report: _Report) -> _Pictures:
        for picture in pictures:
            self._job.raise_if_cancelled()
            report.passed(number)
            yield picture
            self._job.raise_if_cancelled()
        self._job.raise_if_cancelled()

    def _result(self, config: PipelineConfig, context: StageContext, pictures: int, seconds: float) -> dict[str, Any]:
        return {
            "job_id": self._job.job_id,
            "directory": str(context.output.path),
            "files": _first_names(context.output.names),
            "file_count": len(context.output.names),
            "picture_count": pictures,
            "seed": context.known_seed,
            "runtime": round(seconds, 3),
            "config_digest": config.digest,
        }


@dataclass
class _Report:
    job: JobHandle
    context: StageContext
    stages: list[str]
    done: int = 0

    def begin(self) -> None:
        self._say(1)

    def passed(self, number: int) -> None:
        if number == len(self.stages):
            self.done += 1
        self._say(min(number + 1, len(self.stages)))

    def _say(self, number: int) -> None:
        expected = self.context.expected
        total = max(expected, self.done) if expected is not None else None
        self.job.progress(self.done, total, f"stage {number} of {len(self.stages)}: {self.stages[number - 1]}")


def _nothing() -> _Pictures:
    yield from ()


def _require_files(config: PipelineConfig, context: StageContext, pictures: int) -> None:
    if context.output.names:
        return
    stages = " > ".join(stage.name for stage in config.stages)
    raise PipelineProducedNothing(
        f"The pipeline ({stages}) ended without a file; {pictures} pictures passed through. "
        "A pipeline needs a stage that brings pictures, such as 'load', and one that writes, such as 'save'."
    )


def _first_names(names: list[str]) -> list[str]:
    first: list[str] = []
    room = _NAMES_BYTES
    for name in names:
        room -= len(name.encode()) + 4
        if room < 0:
            break
        first.append(name)
    return first
