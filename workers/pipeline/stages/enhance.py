"""Changes the light, contrast, sharpness and colour of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..config import Number
from ..imaging import require_pillow
from ..stage import Picture, StageContext, StageSettings

if TYPE_CHECKING:
    from PIL.Image import Image

Factor = Annotated[Number, Field(ge=0, le=10)]


class EnhanceSettings(StageSettings):
    """Factors: 1 leaves a picture as it is, 0 takes the quality away, 2 doubles it."""

    brightness: Factor = 1
    contrast: Factor = 1
    sharpness: Factor = 1
    #: 0 gives shades of grey.
    colour: Factor = 1


class EnhanceStage:
    """Applies the four factors to every picture."""

    name = "enhance"
    Settings = EnhanceSettings

    def run(self, pictures: Iterator[Picture], settings: EnhanceSettings, context: StageContext) -> Iterator[Picture]:
        """Yield each picture, enhanced."""
        require_pillow()
        for picture in pictures:
            picture.replace_image(_enhanced(picture.image, settings))
            yield picture


def _enhanced(image: Image, settings: EnhanceSettings) -> Image:
    from PIL import ImageEnhance

    profile = image.info
    steps = (
        (ImageEnhance.Brightness, settings.brightness),
        (ImageEnhance.Contrast, settings.contrast),
        (ImageEnhance.Color, settings.colour),
        (ImageEnhance.Sharpness, settings.sharpness),
    )
    for kind, factor in steps:
        if factor != 1:
            image = kind(image).enhance(factor)
    image.info = profile
    return image
