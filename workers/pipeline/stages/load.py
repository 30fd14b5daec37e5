"""Brings pictures in from files and folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from ..config import Text
from ..errors import PictureRefused
from ..imaging import open_picture, require_pillow
from ..input_files import find_pictures
from ..stage import Picture, StageContext, StageSettings


class LoadSettings(StageSettings):
    """Which pictures to load."""

    #: Files and folders. Empty: the pipeline's own ``input.paths``.
    paths: list[Text] = Field(default_factory=list, max_length=100_000)
    #: Whether a folder means its sub-folders too.
    recursive: bool = False


class LoadStage:
    """Reads pictures one by one, after those that came in; upright as their EXIF orientation says."""

    name = "load"
    Settings = LoadSettings

    def run(self, pictures: Iterator[Picture], settings: LoadSettings, context: StageContext) -> Iterator[Picture]:
        """Yield what comes in, then each picture file.

        Raises:
            PictureRefused: naming the picture.
        """
        require_pillow()
        files = _files(settings, context)
        context.expect((context.expected or 0) + len(files))
        before = 0
        for picture in pictures:
            before += 1
            yield picture
        for index, file in enumerate(files, start=before + 1):
            yield Picture(image=open_picture(file), name=file.stem, index=index)


def _files(settings: LoadSettings, context: StageContext) -> list[Path]:
    own = context.config.input.paths if context.config.input else []
    paths = settings.paths or own
    if not paths:
        raise PictureRefused(
            "The load stage has nothing to load; name files or folders in its setting 'paths' or in 'input.paths'."
        )
    return find_pictures(paths, context.settings.input_dirs, recursive=settings.recursive)
