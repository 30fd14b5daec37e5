"""Real pictures, real directories, and a job that remembers what was said to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobledger.errors import JobCancelled
from jobledger.settings import Settings
from jobledger.workers.pipeline import PipelineRunner, validate_pipeline
from jobledger.workers.pipeline.registry import StageRegistry, installed_stages
from PIL import Image


class ListeningJob:
    """A job handle outside of a worker: cancelled by hand, with everything it was told."""

    def __init__(self, job_id: str | None = "job-1") -> None:
        self.job_id = job_id
        self.steps: list[tuple[float, float | None, str]] = []
        self.lines: list[str] = []
        self.callbacks: list[Callable[[], object]] = []
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        self._cancelled = True
        for callback in self.callbacks:
            callback()

    def raise_if_cancelled(self) -> None:
        if self._cancelled:
            raise JobCancelled("cancelled by the test")

    def on_cancel(self, callback: Callable[[], object]) -> None:
        self.callbacks.append(callback)

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        self.steps.append((done, total, text))

    def log(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def job() -> ListeningJob:
    return ListeningJob()


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    directory = tmp_path / "inputs"
    directory.mkdir()
    return directory


@pytest.fixture
def settings(tmp_path: Path, inputs: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", input_dirs=(inputs,), output_dir=tmp_path / "outputs")


@pytest.fixture
def output(settings: Settings) -> Path:
    """Where the files of the fixture ``job`` come out."""
    return settings.outputs / "job-1"


@pytest.fixture
def draw(inputs: Path) -> Callable[..., Path]:
    """Draws a picture whose left half has one colour and whose right half has another."""

    def draw_picture(
        name: str = "photo.jpg",
        size: tuple[int, int] = (80, 40),
        left: str = "red",
        right: str = "blue",
        mode: str = "RGB",
        **save: Any,
    ) -> Path:
        path = inputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.new(mode, size, right) as image:
            image.paste(left, (0, 0, size[0] // 2, size[1]))
            image.save(path, **save)
        return path

    return draw_picture


@pytest.fixture
def run(settings: Settings, job: ListeningJob) -> Callable[..., dict[str, Any]]:
    """Runs stages over ``photo.jpg`` (or other paths), the way the task does it."""

    def run_pipeline(*stages: dict[str, Any], registry: StageRegistry | None = None, **fields: Any) -> dict[str, Any]:
        known = registry or installed_stages()
        config = validate_pipeline({"stages": list(stages), **fields}, known)
        return PipelineRunner(known, settings, job).run(config)

    return run_pipeline


@pytest.fixture
def through(run: Callable[..., dict[str, Any]], output: Path) -> Callable[..., Image.Image]:
    """Sends ``photo.jpg`` (or another picture) through stages and returns the PNG that comes out."""

    def send(*stages: dict[str, Any], path: str = "photo.jpg") -> Image.Image:
        result = run({"name": "load", "settings": {"paths": [path]}}, *stages, {"name": "save"})
        with Image.open(output / result["files"][0]) as image:
            image.load()
            return image

    return send
