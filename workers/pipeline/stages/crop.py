"""Cuts a part out of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from ..imaging import require_pillow
from ..stage import Picture, StageContext, StageSettings
from .placement import Position, offset

if TYPE_CHECKING:
    from PIL.Image import Image


class CropSettings(StageSettings):
    """The size of the part, in pixels, and where it lies."""

    width: int = Field(ge=1, le=16_384)
    height: int = Field(ge=1, le=16_384)
    position: Position = "center"


class CropStage:
    """Cuts a part of the wanted size out of every picture; a side that is shorter already stays as it is."""

    name = "crop"
    Settings = CropSettings

    def run(self, pictures: Iterator[Picture], settings: CropSettings, context: StageContext) -> Iterator[Picture]:
        """Yield each picture, cut."""
        require_pillow()
        for picture in pictures:
            picture.replace_image(_cut(picture.image, settings))
            yield picture


def _cut(image: Image, settings: CropSettings) -> Image:
    size = (min(settings.width, image.width), min(settings.height, image.height))
    if size == image.size:
        return image
    left, top = offset(settings.position, image.size, size)
    return image.crop((left, top, left + size[0], top + size[1]))
