"""Running pipelines: order, progress, cancel, results, stages of other people."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jobledger.errors import InvalidJob, JobCancelled
from jobledger.settings import Settings
from jobledger.workers.cancellation import CancelToken
from jobledger.workers.job_context import JobContext
from jobledger.workers.pipeline import PipelineProducedNothing, PipelineRunner, validate_pipeline
from jobledger.workers.pipeline.config import PipelineConfig
from jobledger.workers.pipeline.errors import PictureRefused, PipelineError
from jobledger.workers.pipeline.registry import StageRegistry, installed_stages
from jobledger.workers.pipeline.stage import Picture, StageContext, StageSettings
from jobledger.workers.pipeline.stages.load import LoadStage
from jobledger.workers.pipeline.stages.save import SaveStage
from jobledger.workers.pipeline.task import PIPELINE_TASK, execute_pipeline, register_pipeline_task
from PIL import Image

Run = Callable[..., dict[str, Any]]
Draw = Callable[..., Path]

LOAD = {"name": "load", "settings": {"paths": ["."]}}
SAVE = {"name": "save"}


@pytest.fixture
def five_pictures(draw: Draw) -> None:
    for number in range(1, 6):
        draw(f"{number}.png")


class NoSettings(StageSettings):
    """A stage without settings."""


class CallingStage:
    """Calls a function for every picture; a plugin as somebody else would write it."""

    name = "call"
    Settings = NoSettings

    def __init__(self, call: Any) -> None:
        self._call = call

    def run(self, pictures: Iterator[Picture], settings: NoSettings, context: StageContext) -> Iterator[Picture]:
        for picture in pictures:
            self._call(picture, context)
            yield picture


def registry_with(**stages: Any) -> StageRegistry:
    return StageRegistry({"load": LoadStage, "save": SaveStage, **stages})


def test_the_result_is_a_small_reference(run: Run, draw: Draw, settings: Settings, job: Any) -> None:
    draw("photo.jpg")
    result = run(LOAD, SAVE, seed=42, output={"directory": "holiday"})
    assert json.loads(json.dumps(result)) == result
    directory = settings.outputs / "holiday" / "job-1"
    assert result == {
        "job_id": "job-1",
        "directory": str(directory),
        "files": ["photo.png"],
        "file_count": 1,
        "picture_count": 1,
        "seed": 42,
        "runtime": result["runtime"],
        "config_digest": result["config_digest"],
    }
    assert 0 <= result["runtime"] < 60


def test_the_result_stays_small_however_many_files_came_out(run: Run, inputs: Path) -> None:
    with Image.new("RGB", (2, 2)) as image:
        for number in range(300):
            image.save(inputs / f"{number:03}-{'x' * 80}.png")
    result = run(LOAD, SAVE)
    assert result["file_count"] == 300
    assert 0 < len(result["files"]) < 300
    assert len(json.dumps(result)) < 3_000


def test_a_seed_that_nobody_asked_for_or_used_is_not_made_up(run: Run, draw: Draw) -> None:
    draw("photo.jpg")
    assert run(LOAD, SAVE, seed=-1)["seed"] is None
    assert run(LOAD, SAVE)["seed"] is None


def test_pictures_go_one_by_one_through_the_stages_in_order(run: Run, five_pictures: None) -> None:
    seen = []
    registry = registry_with(
        first=lambda: CallingStage(lambda picture, _: seen.append(("first", picture.name))),
        second=lambda: CallingStage(lambda picture, _: seen.append(("second", picture.name))),
    )
    run(LOAD, {"name": "first"}, {"name": "second"}, SAVE, registry=registry)
    assert seen == [(stage, str(number)) for number in range(1, 6) for stage in ("first", "second")]


def test_progress_names_stage_and_pictures(run: Run, five_pictures: None, job: Any) -> None:
    run(LOAD, SAVE)
    assert job.steps[0] == (0, None, "stage 1 of 2: load")
    assert (0, 5, "stage 2 of 2: save") in job.steps
    assert job.steps[-1] == (5, 5, "stage 2 of 2: save")
    assert [done for done, _, _ in job.steps] == sorted(done for done, _, _ in job.steps)


def test_a_job_that_was_cancelled_before_it_started_does_nothing(
    run: Run, five_pictures: None, job: Any, settings: Settings
) -> None:
    job.cancel()
    with pytest.raises(JobCancelled):
        run(LOAD, SAVE)
    assert not settings.outputs.exists()


def test_a_cancel_stops_between_two_pictures(run: Run, five_pictures: None, job: Any, output: Path) -> None:
    def cancel_at_third(picture: Picture, context: StageContext) -> None:
        if picture.name == "3":
            job.cancel()

    registry = registry_with(watch=lambda: CallingStage(cancel_at_third))
    with pytest.raises(JobCancelled):
        run(LOAD, SAVE, {"name": "watch"}, registry=registry)
    assert sorted(path.name for path in output.iterdir()) == ["1.png", "2.png", "3.png"]


def test_a_cancel_during_a_stage_drops_what_the_stage_still_gives(
    run: Run, five_pictures: None, job: Any, output: Path
) -> None:
    registry = registry_with(watch=lambda: CallingStage(lambda *_: job.cancel()))
    with pytest.raises(JobCancelled):
        run(LOAD, {"name": "watch"}, SAVE, registry=registry)
    assert not output.exists()


def test_a_cancel_after_the_last_stage_gave_its_last_picture_still_counts(run: Run, draw: Draw, job: Any) -> None:
    draw("photo.jpg")
    registry = registry_with(watch=lambda: CallingStage(lambda *_: job.cancel()))
    with pytest.raises(JobCancelled):
        run(LOAD, SAVE, {"name": "watch"}, registry=registry)


def test_a_stage_that_blocks_is_interrupted_by_its_own_callback(settings: Settings, draw: Draw) -> None:
    draw("photo.jpg")
    token = CancelToken()
    interrupted = threading.Event()
    entered = threading.Event()

    def wait_for_a_server(picture: Picture, context: StageContext) -> None:
        context.job.on_cancel(interrupted.set)
        entered.set()
        assert interrupted.wait(20)

    registry = registry_with(watch=lambda: CallingStage(wait_for_a_server))
    context = JobContext("job-1", token=token)
    config = validate_pipeline({"stages": [LOAD, {"name": "watch"}, SAVE]}, registry)

    def cancel_when_entered() -> None:
        assert entered.wait(20)
        token.cancel()

    canceller = threading.Thread(target=cancel_when_entered)
    canceller.start()
    with pytest.raises(JobCancelled):
        PipelineRunner(registry, settings, context).run(config)
    canceller.join()
    context.close()
    assert interrupted.is_set()
    assert not settings.outputs.exists()


def test_stages_are_closed_when_a_later_one_fails(run: Run, five_pictures: None) -> None:
    closed = []

    class Source(CallingStage):
        def run(self, pictures: Iterator[Picture], settings: Any, context: StageContext) -> Iterator[Picture]:
            try:
                yield from pictures
            finally:
                closed.append(True)

    def fail(*_: object) -> None:
        raise PipelineError("out of memory on the image server")

    registry = registry_with(source=lambda: Source(None), fail=lambda: CallingStage(fail))
    with pytest.raises(PipelineError, match="out of memory"):
        run(LOAD, {"name": "source"}, {"name": "fail"}, SAVE, registry=registry)
    assert closed == [True]


@pytest.mark.parametrize("stages", [[SAVE], [LOAD], [LOAD, {"name": "drop"}, SAVE]])
def test_a_pipeline_without_a_product_fails(run: Run, draw: Draw, stages: list[dict[str, Any]]) -> None:
    draw("photo.jpg")

    class Drop(CallingStage):
        def run(self, pictures: Iterator[Picture], settings: Any, context: StageContext) -> Iterator[Picture]:
            for picture in pictures:
                picture.close()
            yield from ()

    with pytest.raises(PipelineProducedNothing, match="ended without a file"):
        run(*stages, registry=registry_with(drop=lambda: Drop(None)))


def test_a_stage_may_make_pictures_and_write_files_of_its_own(run: Run, output: Path) -> None:
    class Painter(CallingStage):
        def run(self, pictures: Iterator[Picture], settings: Any, context: StageContext) -> Iterator[Picture]:
            context.expect(2)
            for index in (1, 2):
                context.output.write(f"note-{index}", ".txt", lambda file: file.write(b"painted"))
                yield Picture(Image.new("RGB", (4, 4)), f"painted-{context.seed}", index)

    result = run({"name": "paint"}, SAVE, registry=registry_with(paint=lambda: Painter(None)), seed=7)
    assert result["files"] == ["note-1.txt", "painted-7.png", "note-2.txt", "painted-7-2.png"]


def test_one_picture_is_in_memory_at_a_time(run: Run, draw: Draw) -> None:
    for number in range(12):
        draw(f"{number}.png", size=(10, 10))
    alive: list[Image.Image] = []
    most = 0

    def count(picture: Picture, context: StageContext) -> None:
        nonlocal most
        alive.append(picture.image)
        most = max(most, sum(not _is_closed(image) for image in alive))

    run(LOAD, {"name": "count"}, SAVE, registry=registry_with(count=lambda: CallingStage(count)))
    assert len(alive) == 12
    assert most == 1


def _is_closed(image: Image.Image) -> bool:
    try:
        image.getpixel((0, 0))
    except ValueError:
        return True
    return False


def test_a_stage_that_nobody_offers_any_more_fails_with_its_name(settings: Settings, job: Any) -> None:
    config = PipelineConfig(stages=[{"name": "gone"}])  # type: ignore[list-item]
    with pytest.raises(PipelineError, match="no stage 'gone'; known ones: load, save"):
        PipelineRunner(registry_with(), settings, job).run(config)


def test_what_is_offered_as_a_stage_must_be_one() -> None:
    with pytest.raises(PipelineError, match=r"'odd' has no run\(\)"):
        StageRegistry({"odd": object}).create("odd")


def test_the_built_in_stages_are_installed_as_entry_points() -> None:
    assert {"crop", "enhance", "load", "resize", "save", "watermark"} <= set(installed_stages().names)
    assert all(installed_stages().create(name).name == name for name in installed_stages().names)


def test_missing_pillow_is_named_with_the_command_that_installs_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(PipelineError, match=r'pip install "jobledger\[pictures\]"'):
        run(LOAD, SAVE)


def test_importing_pipelines_needs_neither_pillow_nor_celery() -> None:
    import subprocess
    import sys

    code = "import sys, jobledger.workers.pipeline as p; sys.exit(any(m in sys.modules for m in ('PIL', 'celery')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def worker_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inputs: Path) -> Path:
    monkeypatch.setenv("JOBLEDGER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JOBLEDGER_INPUT_DIRS", str(inputs))
    return tmp_path / "data" / "outputs"


def test_the_task_runs_with_the_settings_of_the_worker(worker_environment: Path, draw: Draw) -> None:
    draw("photo.jpg")
    result = execute_pipeline({"stages": [LOAD, SAVE]})
    assert Path(result["directory"]).parent == worker_environment
    assert (Path(result["directory"]) / "photo.png").is_file()


def test_the_task_checks_again_what_it_is_sent() -> None:
    with pytest.raises(InvalidJob, match="newer Jobledger"):
        execute_pipeline({"schema_version": 2, "stages": [LOAD]})


def test_the_task_is_registered_once(worker_environment: Path, draw: Draw) -> None:
    from celery import Celery

    app = Celery("test", broker="memory://", set_as_current=False)
    register_pipeline_task(app)
    register_pipeline_task(app)
    assert [name for name in app.tasks if name.startswith("jobledger.")] == [PIPELINE_TASK]
    draw("photo.jpg")
    assert app.tasks[PIPELINE_TASK](config={"stages": [LOAD, SAVE]})["file_count"] == 1
    assert PIPELINE_TASK not in Celery("other", set_as_current=False).tasks


def test_errors_of_a_pipeline_survive_the_way_to_the_main_process() -> None:
    import pickle

    for error in (PipelineError("a"), PipelineProducedNothing("b"), PictureRefused("c")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy)) == (type(error), str(error))
