"""The pictures that everybody can try pipelines with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from jobledger.workers.pipeline.sample_pictures import make_sample_pictures
from PIL import Image

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_twelve_different_small_pictures_are_made(tmp_path: Path) -> None:
    paths = make_sample_pictures(tmp_path / "new" / "samples")
    assert len({path.read_bytes() for path in paths}) == 12
    assert sum(path.stat().st_size for path in paths) < 200_000
    sizes, formats, orientations = set(), set(), []
    for path in paths:
        with Image.open(path) as image:
            sizes.add(image.size)
            formats.add(image.format)
            orientations.append(image.getexif().get(0x0112, 1))
    assert formats == {"JPEG", "PNG", "WEBP"}
    assert any(width > height for width, height in sizes)
    assert any(width < height for width, height in sizes)
    assert sorted(orientations) == [1] * 11 + [6]


def test_they_are_the_same_on_every_run(tmp_path: Path) -> None:
    first, second = make_sample_pictures(tmp_path / "a"), make_sample_pictures(tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_more_than_twelve_are_variations(tmp_path: Path) -> None:
    paths = make_sample_pictures(tmp_path, 15)
    assert len({path.name for path in paths}) == 15
    assert len({path.read_bytes() for path in paths}) == 15


def test_the_shipped_pictures_are_those_that_the_script_draws(tmp_path: Path) -> None:
    script = EXAMPLES / "make_sample_pictures.py"
    run = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True)
    drawn = sorted(Path(line) for line in run.stdout.splitlines())
    shipped = sorted((EXAMPLES / "pictures").iterdir())
    assert [path.name for path in drawn] == [path.name for path in shipped]
    for one, other in zip(drawn, shipped, strict=True):
        with Image.open(one) as made, Image.open(other) as kept:
            assert made.size == kept.size
