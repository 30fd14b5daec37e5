"""The seam between a pipeline and its stages; a stage is a small plugin.

A package offers a stage by an entry point of the group ``jobledger.stages``::

    [project.entry-points."jobledger.stages"]
    sepia = "my_package.sepia:SepiaStage"

The entry point's name is what a pipeline says; its object is called without arguments, once for each use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from random import SystemRandom
from typing import TYPE_CHECKING, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from ...settings import Settings
from .config import OutputConfig, PipelineConfig
from .output_directory import OutputDirectory

if TYPE_CHECKING:
    from PIL.Image import Image

_LARGEST_SEED = 2**32 - 1


class StageSettings(BaseModel):
    """The base of every stage's settings: no type is guessed, no unknown name is accepted.

    Defaults are written into the job when it is submitted, so that a later release cannot change its outcome.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class JobHandle(Protocol):
    """What a stage may ask and say about the job it works for; ``jobledger.current_job()`` is one.

    A stage that blocks for minutes, for instance in a call to an image server, registers ``on_cancel`` first:
    the callback runs in another thread and interrupts what the stage waits for.
    """

    @property
    def job_id(self) -> str | None:
        """The job's id; ``None`` outside of a worker."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether somebody cancelled the job."""
        ...

    def raise_if_cancelled(self) -> None:
        """Raise ``JobCancelled`` if somebody cancelled the job."""
        ...

    def on_cancel(self, callback: Callable[[], object]) -> object:
        """Call ``callback`` from another thread when the job is cancelled."""
        ...

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Say how far the job is."""
        ...

    def log(self, text: str) -> None:
        """Add a line to the job's log."""
        ...


@dataclass
class Picture:
    """One picture on its way through the stages; it owns its image, in mode RGB or RGBA."""

    image: Image
    #: The name of the file it came from, without directory and ending.
    name: str
    #: Its number in the job, from 1.
    index: int

    def replace_image(self, image: Image) -> None:
        """Take another image, and free the one before."""
        if image is not self.image:
            self.image.close()
            self.image = image

    def close(self) -> None:
        """Free the image."""
        self.image.close()


@dataclass
class StageContext:
    """What all stages of one running pipeline share."""

    config: PipelineConfig
    settings: Settings
    job: JobHandle
    output: OutputDirectory
    #: How many pictures will come, as soon as a stage knows.
    expected: int | None = None
    _seed: int | None = field(default=None, init=False)

    @property
    def seed(self) -> int:
        """The seed of this run: the requested one, or one drawn at the first use if it was missing or -1."""
        if self._seed is None:
            asked = self.config.seed
            self._seed = asked if asked is not None and asked >= 0 else SystemRandom().randint(0, _LARGEST_SEED)
        return self._seed

    @property
    def known_seed(self) -> int | None:
        """The seed, if the request named one or a stage has used one."""
        asked = self.config.seed
        return asked if asked is not None and asked >= 0 else self._seed

    @property
    def output_config(self) -> OutputConfig:
        """How output files are named and written, as far as the pipeline says."""
        return self.config.output or OutputConfig()

    def expect(self, pictures: int) -> None:
        """Say how many pictures there will be; a stage that multiplies pictures says so again."""
        self.expected = pictures


SettingsT = TypeVar("SettingsT", bound=BaseModel)


class Stage(Protocol[SettingsT]):
    """One kind of step. An object of it serves one use in one job."""

    @property
    def name(self) -> str:
        """What a pipeline calls it; the same as the entry point's name."""
        ...

    @property
    def Settings(self) -> type[SettingsT]:  # noqa: N802 - a class, named as one
        """The pydantic model of its settings, best derived from ``StageSettings``."""
        ...

    def run(self, pictures: Iterator[Picture], settings: SettingsT, context: StageContext) -> Iterable[Picture]:
        """Yield the pictures that come out, best one by one: then a job holds one in memory at a time.

        The first stage gets no pictures and makes them. A stage that writes files does so through
        ``context.output``. A picture that was yielded belongs to whoever took it. Between two pictures the
        pipeline itself looks whether the job was cancelled.
        """
        ...
