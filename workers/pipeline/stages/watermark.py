"""Writes a text over pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..config import Number
from ..imaging import require_pillow
from ..stage import Picture, StageContext, StageSettings
from .placement import Position, offset

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

_SMALLEST_LETTERS = 6


class WatermarkSettings(StageSettings):
    """The text, and how it looks."""

    text: str = Field(min_length=1, max_length=200, pattern=r"\S")
    position: Position = "bottom-right"
    #: From 0 (nothing to see) to 1 (nothing shines through).
    opacity: Annotated[Number, Field(ge=0, le=1)] = 0.5
    #: The height of the letters, as a part of the picture's shorter side; a long text gets smaller letters.
    size: Annotated[Number, Field(gt=0, le=1)] = 0.06
    #: As ``#rrggbb``.
    colour: str = Field(default="#ffffff", pattern=r"^#[0-9a-fA-F]{6}$")


class WatermarkStage:
    """Writes the text over every picture, with the font that comes with Pillow."""

    name = "watermark"
    Settings = WatermarkSettings

    def run(self, pictures: Iterator[Picture], settings: WatermarkSettings, context: StageContext) -> Iterator[Picture]:
        """Yield each picture, marked."""
        require_pillow()
        for picture in pictures:
            _mark(picture.image, settings)
            yield picture


def _mark(image: Image, settings: WatermarkSettings) -> None:
    margin = max(min(image.size) // 40, 2)
    stencil = _stencil(image.size, settings, image.width - 2 * margin)
    place = offset(settings.position, image.size, stencil.size, margin)
    colour = (*bytes.fromhex(settings.colour[1:]), *([255] if image.mode == "RGBA" else []))
    with stencil:
        image.paste(colour, (*place, place[0] + stencil.width, place[1] + stencil.height), stencil)


def _stencil(size: tuple[int, int], settings: WatermarkSettings, room: int) -> Image:
    from PIL import Image, ImageDraw

    font = _fitting_font(settings.text, max(settings.size * min(size), _SMALLEST_LETTERS), room)
    left, top, right, bottom = _extent(settings.text, font)
    stencil = Image.new("L", (max(right - left, 1), max(bottom - top, 1)), 0)
    shade = round(255 * settings.opacity)
    ImageDraw.Draw(stencil).text((-left, -top), settings.text, fill=shade, font=font)
    return stencil


def _fitting_font(text: str, size: float, room: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    while True:
        font = ImageFont.load_default(size)
        left, _, right, _ = _extent(text, font)
        if right - left <= room or size <= _SMALLEST_LETTERS:
            return font
        # Small letters are not wide in proportion, so one step may not be enough.
        size = max(size * min(room / (right - left), 0.95), _SMALLEST_LETTERS)


def _extent(text: str, font: FreeTypeFont | ImageFont) -> tuple[int, int, int, int]:
    from PIL import Image, ImageDraw

    with Image.new("L", (1, 1)) as canvas:
        left, top, right, bottom = ImageDraw.Draw(canvas).textbbox((0, 0), text, font=font)
    return int(left), int(top), int(right) + 1, int(bottom) + 1
