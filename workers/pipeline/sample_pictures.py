"""Sample pictures to try pipelines with: quiet landscapes, drawn by a program, the same on every run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from .imaging import require_pillow

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = tuple[int, int, int]

_ORIENTATION_TAG = 0x0112
#: A camera held upright: the file's picture lies on its side, and EXIF says to turn it clockwise.
_TURN_CLOCKWISE = 6
_OVERSAMPLING = 2


@dataclass(frozen=True)
class _Scene:
    name: str
    size: tuple[int, int]
    #: From the zenith to the horizon.
    sky: tuple[Colour, Colour, Colour]
    #: The farthest and the nearest range of hills.
    hills: tuple[Colour, Colour]
    sun: Colour
    #: Where the sun stands, as parts of the width and of the sky.
    sun_at: tuple[float, float]
    roughness: float = 0.5
    water: bool = False
    stars: int = 0
    ending: str = ".jpg"
    sideways: bool = False


_SCENES = (
    _Scene(
        "morning-lake",
        (640, 427),
        ((72, 118, 170), (170, 196, 214), (250, 224, 196)),
        ((150, 168, 190), (36, 62, 74)),
        (255, 240, 205),
        (0.68, 0.62),
        water=True,
    ),
    _Scene(
        "desert-evening",
        (720, 405),
        ((92, 58, 110), (214, 110, 92), (252, 190, 110)),
        ((190, 104, 84), (74, 34, 42)),
        (255, 226, 150),
        (0.3, 0.78),
        roughness=0.35,
    ),
    _Scene(
        "winter-ridge",
        (300, 400),
        ((96, 140, 190), (178, 206, 226), (232, 240, 244)),
        ((206, 220, 232), (84, 110, 138)),
        (255, 252, 240),
        (0.75, 0.25),
        roughness=0.62,
        ending=".png",
    ),
    _Scene(
        "green-valley",
        (512, 512),
        ((84, 152, 196), (160, 204, 220), (226, 238, 220)),
        ((140, 176, 150), (30, 74, 46)),
        (255, 250, 214),
        (0.22, 0.3),
    ),
    _Scene(
        "night-hills",
        (640, 360),
        ((8, 12, 36), (22, 36, 78), (62, 84, 124)),
        ((40, 56, 92), (6, 10, 22)),
        (236, 238, 226),
        (0.8, 0.22),
        stars=140,
    ),
    _Scene(
        "tall-fjord",
        (360, 640),
        ((58, 92, 132), (140, 168, 190), (228, 214, 200)),
        ((128, 148, 168), (20, 40, 56)),
        (255, 236, 210),
        (0.4, 0.7),
        roughness=0.66,
        water=True,
        sideways=True,
    ),
    _Scene(
        "wide-coast",
        (900, 260),
        ((60, 132, 176), (150, 202, 214), (244, 232, 206)),
        ((120, 156, 168), (26, 66, 78)),
        (255, 246, 216),
        (0.55, 0.66),
        roughness=0.4,
        water=True,
    ),
    _Scene(
        "lavender-dusk",
        (560, 420),
        ((70, 54, 120), (160, 116, 176), (246, 188, 190)),
        ((150, 118, 170), (48, 32, 76)),
        (255, 224, 214),
        (0.5, 0.8),
        ending=".webp",
    ),
    _Scene(
        "autumn-range",
        (600, 450),
        ((110, 140, 160), (206, 196, 172), (248, 214, 150)),
        ((196, 150, 96), (88, 44, 24)),
        (255, 238, 190),
        (0.15, 0.6),
    ),
    _Scene(
        "small-island",
        (240, 240),
        ((40, 104, 150), (120, 184, 200), (250, 226, 180)),
        ((96, 140, 150), (18, 52, 66)),
        (255, 240, 200),
        (0.62, 0.55),
        water=True,
    ),
    _Scene(
        "polar-light",
        (480, 640),
        ((6, 16, 38), (16, 84, 86), (120, 196, 158)),
        ((30, 74, 84), (4, 14, 24)),
        (214, 244, 228),
        (0.25, 0.2),
        stars=180,
        roughness=0.58,
        ending=".webp",
    ),
    _Scene(
        "red-canyon",
        (480, 600),
        ((64, 110, 158), (182, 178, 180), (250, 206, 160)),
        ((206, 122, 86), (94, 32, 22)),
        (255, 238, 200),
        (0.82, 0.5),
        roughness=0.55,
    ),
)


def make_sample_pictures(directory: Path, count: int = len(_SCENES)) -> list[Path]:
    """Draw ``count`` small pictures into ``directory`` and return their paths; the directory is made.

    The first twelve are different scenes in JPEG, PNG and WebP, wide, tall and square, one of them sideways with
    an EXIF orientation; further ones are variations. An existing file of the same name is replaced.

    Raises:
        PipelineError: when Pillow is not installed.
    """
    require_pillow()
    directory.mkdir(parents=True, exist_ok=True)
    return [_write(directory, number) for number in range(count)]


def _write(directory: Path, number: int) -> Path:
    scene = _SCENES[number % len(_SCENES)]
    variation = number // len(_SCENES)
    name = f"{scene.name}-{variation + 1}" if variation else scene.name
    path = directory / f"{name}{scene.ending}"
    with _drawn(scene, Random(name)) as picture:  # noqa: S311 - the same on every run is wanted
        _save(picture, path, sideways=scene.sideways)
    return path


def _save(picture: Image, path: Path, *, sideways: bool) -> None:
    from PIL import Image

    if not sideways:
        picture.save(path, quality=80)
        return
    exif = Image.Exif()
    exif[_ORIENTATION_TAG] = _TURN_CLOCKWISE
    picture.transpose(Image.Transpose.ROTATE_90).save(path, quality=80, exif=exif)


def _drawn(scene: _Scene, random: Random) -> Image:
    from PIL import Image

    width, height = (side * _OVERSAMPLING for side in scene.size)
    horizon = round(height * 0.62)
    picture = _vertical_gradient((width, height), scene.sky, horizon)
    _draw_stars(picture, scene, random, horizon)
    _draw_sun(picture, scene, horizon)
    shore = round(height * 0.74) if scene.water else height
    for depth, colour in _ranges(scene, layers=4):
        _draw_hills(
            picture, random, scene.roughness, horizon + (depth - 0.5) * height * 0.3, colour=colour, bottom=shore
        )
    if scene.water:
        _draw_water(picture, shore, scene.sky[2])
    return picture.resize(scene.size, Image.Resampling.LANCZOS)


def _vertical_gradient(size: tuple[int, int], colours: tuple[Colour, Colour, Colour], horizon: int) -> Image:
    from PIL import Image

    column = Image.new("RGB", (1, size[1]))
    for y in range(size[1]):
        part = min(y / horizon, 1.0) * 2
        pair = colours[:2] if part < 1 else colours[1:]
        column.putpixel((0, y), _blend(pair[0], pair[1], part if part < 1 else part - 1))
    return column.resize(size)


def _blend(one: Colour, other: Colour, part: float) -> Colour:
    mixed = [round(a + (b - a) * part) for a, b in zip(one, other, strict=True)]
    return mixed[0], mixed[1], mixed[2]


def _draw_stars(picture: Image, scene: _Scene, random: Random, horizon: int) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    for _ in range(scene.stars):
        x, y = random.random() * picture.width, random.random() ** 1.5 * horizon
        radius = random.choice((1, 1, 1, 2))
        draw.ellipse((x, y, x + radius, y + radius), fill=_blend(scene.sky[1], (255, 255, 255), random.random()))


def _draw_sun(picture: Image, scene: _Scene, horizon: int) -> None:
    from PIL import Image, ImageDraw, ImageFilter

    x, y = scene.sun_at[0] * picture.width, scene.sun_at[1] * horizon
    radius = min(picture.size) * 0.05
    for reach, light in ((4.0, 70), (2.0, 90), (1.0, 255)):
        mask = Image.new("L", picture.size, 0)
        box = (x - radius * reach, y - radius * reach, x + radius * reach, y + radius * reach)
        ImageDraw.Draw(mask).ellipse(box, fill=light)
        picture.paste(scene.sun, mask=mask.filter(ImageFilter.GaussianBlur(radius * (reach - 0.9) / 2)))


def _ranges(scene: _Scene, layers: int) -> Iterator[tuple[float, Colour]]:
    for layer in range(layers):
        depth = layer / (layers - 1)
        yield depth, _blend(scene.hills[0], scene.hills[1], depth)


def _draw_hills(
    picture: Image, random: Random, roughness: float, middle: float, *, colour: Colour, bottom: int
) -> None:
    from PIL import ImageDraw

    ridge = _ridge(random, roughness, levels=8)
    step = picture.width / (len(ridge) - 1)
    outline = [(index * step, middle - rise * picture.height * 0.16) for index, rise in enumerate(ridge)]
    foot = max(bottom, round(middle))
    ImageDraw.Draw(picture).polygon([(0, foot), *outline, (picture.width, foot)], fill=colour)


def _ridge(random: Random, roughness: float, levels: int) -> list[float]:
    """A line made by moving midpoints, again and again by less."""
    heights = [random.uniform(-1, 1), random.uniform(-1, 1)]
    spread = 1.0
    for _ in range(levels):
        heights = _with_midpoints(heights, random, spread / 2)
        spread *= roughness
    return heights


def _with_midpoints(heights: list[float], random: Random, spread: float) -> list[float]:
    finer = [heights[0]]
    for left, right in pairwise(heights):
        finer += [(left + right) / 2 + random.uniform(-spread, spread), right]
    return finer


def _draw_water(picture: Image, shore: int, light: Colour) -> None:
    from PIL import Image, ImageFilter, ImageOps

    depth = picture.height - shore
    mirror = ImageOps.flip(picture.crop((0, shore - depth, picture.width, shore)))
    mirror = mirror.filter(ImageFilter.BoxBlur(3))
    picture.paste(Image.blend(mirror, Image.new("RGB", mirror.size, light), 0.18), (0, shore))
