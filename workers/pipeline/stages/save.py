"""Writes pictures into the job's own output directory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, BinaryIO

from pydantic import AfterValidator, Field

from ..config import PictureFormat
from ..file_names import checked_pattern, file_stem
from ..imaging import require_pillow
from ..stage import Picture, StageContext, StageSettings

if TYPE_CHECKING:
    from PIL.Image import Image

_ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


class SaveSettings(StageSettings):
    """How the files are written and named."""

    #: Unset: the pipeline's own ``output.format``.
    format: PictureFormat | None = None
    #: Of JPEG and WebP, from 1 (small) to 100 (good).
    quality: int = Field(default=90, ge=1, le=100)
    #: The file's name without its ending. Unset: the pipeline's own ``output.pattern``.
    pattern: Annotated[str, AfterValidator(checked_pattern)] | None = None


class SaveStage:
    """Writes every picture to a file of its own; never over an existing one."""

    name = "save"
    Settings = SaveSettings

    def run(self, pictures: Iterator[Picture], settings: SaveSettings, context: StageContext) -> Iterator[Picture]:
        """Yield each picture after it was written.

        Raises:
            PipelineError: when the output directory cannot be written to.
        """
        require_pillow()
        kind = settings.format or context.output_config.format
        pattern = settings.pattern or context.output_config.pattern
        for picture in pictures:
            stem = file_stem(pattern, _values(pattern, picture, context))
            context.output.write(stem, _ENDINGS[kind], partial(_encode, picture.image, kind, settings.quality))
            yield picture


def _values(pattern: str, picture: Picture, context: StageContext) -> dict[str, str | int]:
    values: dict[str, str | int] = {
        "name": picture.name,
        "index": picture.index,
        "width": picture.image.width,
        "height": picture.image.height,
    }
    return values | {"seed": context.seed} if "{seed" in pattern else values


def _encode(image: Image, kind: str, quality: int, file: BinaryIO) -> None:
    profile = image.info.get("icc_profile")
    match kind:
        case "png":
            image.save(file, "PNG", icc_profile=profile)
        case "jpeg":
            _on_white(image).save(file, "JPEG", quality=quality, optimize=True, icc_profile=profile)
        case "webp":
            image.save(file, "WEBP", quality=quality, icc_profile=profile)


def _on_white(image: Image) -> Image:
    from PIL import Image

    if image.mode == "RGB":
        return image
    ground = Image.new("RGB", image.size, "white")
    ground.paste(image, mask=image.getchannel("A"))
    return ground
