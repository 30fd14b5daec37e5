"""Pictures in memory: opened with care, upright, in one of two modes, and never absurdly large."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import PictureRefused, PipelineError

if TYPE_CHECKING:
    from PIL.Image import Image

#: What is read: format names of Pillow, and the endings that a folder is searched for.
READ_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
READ_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

#: The largest picture: 80 million pixels, that is 240 MB in memory, and its longest side.
LARGEST_PICTURE = 80_000_000
LONGEST_SIDE = 30_000

_BROKEN_FILE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, struct.error)


def require_pillow() -> None:
    """Make sure that Pillow is there.

    Raises:
        PipelineError: naming the command that installs it.
    """
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise PipelineError(
            'The picture stages need Pillow; install it on the worker: pip install "jobledger[pictures]"'
        ) from None


def open_picture(path: Path) -> Image:
    """Return the first frame of a picture file: upright as its EXIF orientation says, in mode RGB or RGBA.

    The file is closed again. Of what the file says beside the pixels only a fitting colour profile is kept.

    Raises:
        PictureRefused: naming the file, when it is no picture, is broken or is too large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with path.open("rb") as file, Image.open(file, formats=READ_FORMATS) as source:
            require_sensible_size(source.width, source.height, f"The picture {path}")
            source.load()
            return _in_working_mode(ImageOps.exif_transpose(source))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(f"The picture {path}", "far more pixels than") from None
    except UnidentifiedImageError:
        kinds = ", ".join(READ_FORMATS)
        raise PictureRefused(f"The file {path} is not a picture that can be read; known kinds: {kinds}.") from None
    except _BROKEN_FILE_ERRORS as error:
        raise PictureRefused(f"The picture {path} cannot be read: {error}.") from error


def require_sensible_size(width: int, height: int, what: str) -> None:
    """Refuse a size that would fill the memory.

    Raises:
        PictureRefused: naming ``what``, its size and the limits.
    """
    if width * height > LARGEST_PICTURE or max(width, height) > LONGEST_SIDE:
        raise _too_large(what, f"{width} x {height} pixels;")


def _too_large(what: str, size: str) -> PictureRefused:
    limits = f"{LARGEST_PICTURE:,} pixels and {LONGEST_SIDE:,} on a side are the limit"
    return PictureRefused(f"{what} has {size} {limits}.")


def _in_working_mode(image: Image) -> Image:
    profile = image.info.get("icc_profile") if image.mode in {"RGB", "RGBA"} else None
    working = _converted(image)
    working.info = {"icc_profile": profile} if profile else {}
    return working


def _converted(image: Image) -> Image:
    if image.mode in {"RGB", "RGBA"} and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        # Pillow would cut 16 bits off at 255 instead of scaling them.
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
