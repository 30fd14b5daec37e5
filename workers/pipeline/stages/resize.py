"""Makes pictures smaller or larger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from ..imaging import LARGEST_PICTURE, require_pillow, require_sensible_size
from ..stage import Picture, StageContext, StageSettings
from .placement import Position, offset

if TYPE_CHECKING:
    from PIL.Image import Image


class ResizeSettings(StageSettings):
    """The wanted size, in pixels, and how to get there."""

    width: int | None = Field(default=None, ge=1, le=16_384)
    height: int | None = Field(default=None, ge=1, le=16_384)
    #: ``fit`` keeps the whole picture inside the size, ``cover`` fills the size and cuts off what stands out,
    #: ``exact`` distorts. ``fit`` needs one of width and height, the others need both.
    mode: Literal["fit", "cover", "exact"] = "fit"
    #: Which part of the picture ``cover`` keeps.
    position: Position = "center"
    #: Whether ``fit`` may make a small picture larger.
    enlarge: bool = False

    @model_validator(mode="after")
    def _require_a_size(self) -> Self:
        if self.width is None and self.height is None:
            raise ValueError("needs a width or a height")
        if self.mode != "fit" and (self.width is None or self.height is None):
            raise ValueError(f"needs a width and a height, because its mode is '{self.mode}'")
        if self.width and self.height and self.width * self.height > LARGEST_PICTURE:
            raise ValueError(f"asks for more than {LARGEST_PICTURE:,} pixels")
        return self


class ResizeStage:
    """Gives every picture the wanted size."""

    name = "resize"
    Settings = ResizeSettings

    def run(self, pictures: Iterator[Picture], settings: ResizeSettings, context: StageContext) -> Iterator[Picture]:
        """Yield each picture, resized.

        Raises:
            PictureRefused: when a long thin picture would become absurdly large.
        """
        require_pillow()
        for picture in pictures:
            picture.replace_image(_resized(picture, settings))
            yield picture


def _resized(picture: Picture, settings: ResizeSettings) -> Image:
    wide, high = picture.image.size
    match settings.mode:
        case "exact":
            return _scaled(picture, settings.width or wide, settings.height or high)
        case "cover":
            return _covering(picture, settings.width or wide, settings.height or high, settings.position)
        case "fit":
            return _fitting(picture, settings)


def _fitting(picture: Picture, settings: ResizeSettings) -> Image:
    wide, high = picture.image.size
    factors = [wanted / side for wanted, side in ((settings.width, wide), (settings.height, high)) if wanted]
    factor = min(factors) if settings.enlarge else min(*factors, 1.0)
    return _scaled(picture, max(round(wide * factor), 1), max(round(high * factor), 1))


def _covering(picture: Picture, width: int, height: int, position: Position) -> Image:
    wide, high = picture.image.size
    factor = max(width / wide, height / high)
    part = (min(max(round(width / factor), 1), wide), min(max(round(height / factor), 1), high))
    left, top = offset(position, (wide, high), part)
    return _scaled(picture, width, height, (left, top, left + part[0], top + part[1]))


def _scaled(picture: Picture, width: int, height: int, box: tuple[int, int, int, int] | None = None) -> Image:
    from PIL import Image

    require_sensible_size(width, height, f"The resized picture {picture.name!r}")
    if (width, height) == picture.image.size and box is None:
        return picture.image
    return picture.image.resize((width, height), Image.Resampling.LANCZOS, box)
