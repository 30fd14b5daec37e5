"""Each built-in stage on real pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobledger.errors import InvalidJob
from jobledger.settings import Settings
from jobledger.workers.pipeline.errors import PictureRefused, PipelineError
from PIL import Image, ImageChops, ImageStat

Run = Callable[..., dict[str, Any]]
Draw = Callable[..., Path]
Through = Callable[..., Any]

LOAD = {"name": "load", "settings": {"paths": ["photo.jpg"]}}


def test_load_reads_files_and_folders_in_order(run: Run, draw: Draw) -> None:
    draw("b.png")
    draw("folder/2.jpg")
    draw("folder/1.webp")
    draw("folder/.hidden.png")
    (draw("folder/3.gif").parent / "notes.txt").write_text("no picture")
    result = run({"name": "load", "settings": {"paths": ["b.png", "folder"]}}, {"name": "save"})
    assert result["files"] == ["b.png", "1.png", "2.png", "3.png"]


def test_load_looks_into_sub_folders_only_when_asked(run: Run, draw: Draw) -> None:
    draw("folder/1.png")
    draw("folder/deep/2.png")
    flat = run({"name": "load", "settings": {"paths": ["folder"]}}, {"name": "save"})
    deep = run({"name": "load", "settings": {"paths": ["folder"], "recursive": True}}, {"name": "save"})
    assert (flat["file_count"], deep["file_count"]) == (1, 2)


def test_load_takes_the_paths_of_the_pipeline_when_it_has_none(run: Run, draw: Draw) -> None:
    draw("photo.jpg")
    result = run({"name": "load"}, {"name": "save"}, input={"paths": ["photo.jpg"]})
    assert result["files"] == ["photo.png"]


def test_load_without_paths_says_where_to_name_them(run: Run) -> None:
    with pytest.raises(PictureRefused, match=r"input\.paths"):
        run({"name": "load"}, {"name": "save"})


def test_load_turns_a_picture_upright_as_its_exif_says(through: Through, draw: Draw) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    draw("photo.jpg", size=(80, 40), exif=exif)
    upright = through()
    assert upright.size == (40, 80)
    assert upright.getpixel((20, 10))[0] > 200
    assert upright.getpixel((20, 70))[2] > 200
    assert upright.getexif().get(0x0112) is None


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "I", "I;16", "CMYK"])
def test_load_takes_every_common_mode(through: Through, inputs: Path, mode: str) -> None:
    ending = "tif" if mode in {"CMYK", "I"} else "png"
    grey = Image.new("L", (16, 16), 200)
    with Image.new("I;16", (16, 16), 200 * 256) if mode.startswith("I") else grey.convert(mode) as image:
        image.convert(mode).save(inputs / f"grey.{ending}")
    loaded = through(path=f"grey.{ending}")
    assert loaded.mode in {"RGB", "RGBA"}
    assert all(abs(band - 200) <= 55 for band in loaded.convert("RGB").getpixel((8, 8)))


def test_load_scales_sixteen_bits_instead_of_cutting_them_off(through: Through, inputs: Path) -> None:
    Image.new("I;16", (16, 16), 100 * 256).save(inputs / "deep.png")
    assert through(path="deep.png").getpixel((8, 8)) == (100, 100, 100)


def test_load_keeps_transparency(through: Through, inputs: Path) -> None:
    Image.new("RGBA", (8, 8), (10, 20, 30, 40)).save(inputs / "clear.png")
    assert through(path="clear.png").getpixel((4, 4)) == (10, 20, 30, 40)


def test_load_names_a_missing_picture(run: Run, draw: Draw) -> None:
    draw("photo.jpg")
    with pytest.raises(PictureRefused, match=r"'gone\.jpg' does not exist"):
        run({"name": "load", "settings": {"paths": ["photo.jpg", "gone.jpg"]}}, {"name": "save"})


def test_load_names_a_file_that_is_no_picture(run: Run, inputs: Path) -> None:
    (inputs / "notes.jpg").write_text("these are notes")
    with pytest.raises(PictureRefused, match=r"notes\.jpg is not a picture"):
        run({"name": "load", "settings": {"paths": ["notes.jpg"]}}, {"name": "save"})


def test_load_names_a_broken_picture(run: Run, draw: Draw) -> None:
    path = draw("photo.jpg", size=(400, 400))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(PictureRefused, match=r"photo\.jpg cannot be read"):
        run(LOAD, {"name": "save"})


def test_load_names_an_empty_folder(run: Run, inputs: Path) -> None:
    (inputs / "empty").mkdir()
    with pytest.raises(PictureRefused, match="'empty' holds no pictures"):
        run({"name": "load", "settings": {"paths": ["empty"]}}, {"name": "save"})


@pytest.mark.parametrize("size", [(9_000, 9_000), (12_000, 12_000), (20_000, 20_000), (30_001, 1)])
def test_load_refuses_a_decompression_bomb_before_it_fills_the_memory(
    run: Run, inputs: Path, size: tuple[int, int]
) -> None:
    with Image.new("1", size) as image:
        image.save(inputs / "bomb.png")
    with pytest.raises(PictureRefused, match=r"bomb\.png has .*80,000,000 pixels and 30,000 on a side"):
        run({"name": "load", "settings": {"paths": ["bomb.png"]}}, {"name": "save"})


def test_load_never_waits_for_a_pipe(run: Run, inputs: Path) -> None:
    os.mkfifo(inputs / "pipe.jpg")
    with pytest.raises(PictureRefused, match="does not exist"):
        run({"name": "load", "settings": {"paths": ["pipe.jpg"]}}, {"name": "save"})


@pytest.mark.parametrize(
    ("wanted", "size"),
    [
        ({"width": 40}, (40, 20)),
        ({"height": 10}, (20, 10)),
        ({"width": 40, "height": 40}, (40, 20)),
        ({"width": 800}, (80, 40)),
        ({"width": 160, "enlarge": True}, (160, 80)),
        ({"width": 30, "height": 30, "mode": "cover"}, (30, 30)),
        ({"width": 300, "height": 300, "mode": "cover"}, (300, 300)),
        ({"width": 33, "height": 77, "mode": "exact"}, (33, 77)),
    ],
)
def test_resize_gives_the_size_that_the_mode_means(
    through: Through, draw: Draw, wanted: dict[str, Any], size: tuple[int, int]
) -> None:
    draw("photo.jpg", size=(80, 40))
    assert through({"name": "resize", "settings": wanted}).size == size


def test_resize_never_makes_a_side_of_zero_pixels(through: Through, draw: Draw) -> None:
    draw("photo.jpg", size=(900, 2))
    assert through({"name": "resize", "settings": {"width": 10}}).size == (10, 1)


@pytest.mark.parametrize(("position", "band"), [("left", 0), ("right", 2)])
def test_cover_keeps_the_part_that_was_asked_for(through: Through, draw: Draw, position: str, band: int) -> None:
    draw("photo.jpg", size=(80, 40))
    image = through({"name": "resize", "settings": {"width": 20, "height": 20, "mode": "cover", "position": position}})
    assert image.getpixel((10, 10))[band] > 200


def test_cover_cuts_off_and_does_not_distort(through: Through, inputs: Path) -> None:
    with Image.new("RGB", (90, 30), "white") as image:
        image.paste("black", (30, 0, 60, 30))
        image.save(inputs / "photo.png")
    cut = through({"name": "resize", "settings": {"width": 30, "height": 30, "mode": "cover"}}, path="photo.png")
    assert max(ImageStat.Stat(cut).mean) < 8


def test_resize_refuses_what_a_thin_picture_would_become(run: Run, draw: Draw) -> None:
    draw("photo.jpg", size=(2, 900))
    with pytest.raises(PictureRefused, match="The resized picture 'photo' has"):
        run(LOAD, {"name": "resize", "settings": {"width": 16_384, "enlarge": True}}, {"name": "save"})


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ({}, "needs a width or a height"),
        ({"width": 5, "mode": "cover"}, "needs a width and a height"),
        ({"width": 16_384, "height": 16_384}, "more than 80,000,000 pixels"),
    ],
)
def test_resize_without_a_usable_size_is_refused_at_submission(run: Run, wanted: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidJob, match=problem) as refusal:
        run(LOAD, {"name": "resize", "settings": wanted})
    assert refusal.value.field == "stages[1].settings"


def test_crop_cuts_the_part_out(through: Through, draw: Draw) -> None:
    draw("photo.jpg", size=(80, 40))
    part = through({"name": "crop", "settings": {"width": 20, "height": 10, "position": "bottom-right"}})
    assert part.size == (20, 10)
    assert part.getpixel((5, 5))[2] > 200


def test_crop_leaves_a_side_that_is_shorter(through: Through, draw: Draw) -> None:
    draw("photo.jpg", size=(80, 40))
    assert through({"name": "crop", "settings": {"width": 50, "height": 100}}).size == (50, 40)


def mean(image: Image.Image) -> float:
    return sum(ImageStat.Stat(image.convert("L")).mean)


def test_enhance_changes_brightness(through: Through, draw: Draw) -> None:
    draw("photo.jpg", left="#404040", right="#606060")
    plain, bright = through(), through({"name": "enhance", "settings": {"brightness": 2}})
    assert mean(bright) == pytest.approx(2 * mean(plain), rel=0.05)


def test_enhance_changes_contrast(through: Through, draw: Draw) -> None:
    draw("photo.jpg", left="#404040", right="#808080")
    flat = through({"name": "enhance", "settings": {"contrast": 0}})
    assert max(ImageStat.Stat(flat).stddev) == 0


def test_enhance_changes_colour(through: Through, draw: Draw) -> None:
    draw("photo.jpg")
    red, green, blue = through({"name": "enhance", "settings": {"colour": 0}}).getpixel((10, 10))
    assert red == green == blue


def test_enhance_changes_sharpness(through: Through, draw: Draw) -> None:
    draw("photo.jpg", left="#606060", right="#a0a0a0")
    plain, sharp = through(), through({"name": "enhance", "settings": {"sharpness": 5}})
    assert ImageChops.difference(plain, sharp).getbbox() is not None


def test_enhance_by_one_changes_nothing(through: Through, draw: Draw) -> None:
    draw("photo.jpg")
    assert ImageChops.difference(through(), through({"name": "enhance"})).getbbox() is None


@pytest.mark.parametrize("factor", [-1, 11, True, "2"])
def test_enhance_refuses_a_factor_outside_of_its_range(run: Run, factor: object) -> None:
    with pytest.raises(InvalidJob) as refusal:
        run(LOAD, {"name": "enhance", "settings": {"contrast": factor}})
    assert refusal.value.field == "stages[1].settings.contrast"


def changed_box(through: Through, draw: Draw, **settings: Any) -> tuple[int, int, int, int]:
    draw("photo.png", size=(200, 100), left="black", right="black")
    plain = through(path="photo.png")
    marked = through({"name": "watermark", "settings": {"text": "Jobledger", **settings}}, path="photo.png")
    box = ImageChops.difference(plain, marked).getbbox()
    assert box is not None
    return box


def test_watermark_stands_where_it_was_asked_for(through: Through, draw: Draw) -> None:
    left, top, right, bottom = changed_box(through, draw, position="top-left")
    assert right < 100
    assert bottom < 50
    left, top, right, bottom = changed_box(through, draw, position="bottom-right")
    assert left > 100
    assert top > 50


def test_watermark_is_as_opaque_as_it_was_asked_for(through: Through, draw: Draw) -> None:
    draw("photo.png", size=(200, 100), left="black", right="black")
    half, full = (
        through(
            {"name": "watermark", "settings": {"text": "MMMM", "size": 0.5, "opacity": opacity}}, path="photo.png"
        ).getextrema()[0][1]
        for opacity in (0.5, 1)
    )
    assert half == pytest.approx(128, abs=2)
    assert full == 255


def test_a_long_watermark_gets_smaller_and_stays_inside(through: Through, draw: Draw) -> None:
    left, _, right, _ = changed_box(through, draw, text="a long line of words for a small picture", size=0.5)
    assert left > 0
    assert right < 200


def test_watermark_works_on_tiny_and_on_transparent_pictures(through: Through, inputs: Path) -> None:
    Image.new("RGBA", (3, 3), (0, 0, 0, 0)).save(inputs / "tiny.png")
    assert through({"name": "watermark", "settings": {"text": "Jobledger"}}, path="tiny.png").size == (3, 3)
    Image.new("RGBA", (90, 90), (0, 0, 0, 0)).save(inputs / "clear.png")
    marked = through({"name": "watermark", "settings": {"text": "Mark", "opacity": 1, "size": 0.4}}, path="clear.png")
    assert marked.getchannel("A").getextrema() == (0, 255)


@pytest.mark.parametrize(("kind", "ending"), [("png", ".png"), ("jpeg", ".jpg"), ("webp", ".webp")])
def test_save_writes_each_format(run: Run, draw: Draw, output: Path, kind: str, ending: str) -> None:
    draw("photo.jpg")
    result = run(LOAD, {"name": "save", "settings": {"format": kind}})
    with Image.open(output / f"photo{ending}") as image:
        assert image.format == kind.upper()
    assert result["files"] == [f"photo{ending}"]


def test_save_takes_format_and_pattern_of_the_pipeline(run: Run, draw: Draw) -> None:
    draw("photo.jpg")
    result = run(LOAD, {"name": "save"}, output={"format": "webp", "pattern": "{index:03}-{name}-{width}x{height}"})
    assert result["files"] == ["001-photo-80x40.webp"]


def test_save_writes_the_seed_into_the_name_and_the_result(run: Run, draw: Draw) -> None:
    draw("photo.jpg")
    assert run(LOAD, {"name": "save", "settings": {"pattern": "{seed}"}}, seed=0)["files"] == ["0.png"]
    drawn = run(LOAD, {"name": "save", "settings": {"pattern": "{seed}"}}, seed=-1)
    assert drawn["files"] == [f"{drawn['seed']}.png"]
    assert drawn["seed"] >= 0


def test_save_with_a_lower_quality_writes_a_smaller_file(run: Run, inputs: Path, output: Path) -> None:
    with Image.effect_noise((200, 200), 80) as noise:
        noise.save(inputs / "photo.jpg")
    sizes = []
    for quality in (20, 95):
        result = run(LOAD, {"name": "save", "settings": {"format": "jpeg", "quality": quality}})
        sizes.append((output / result["files"][0]).stat().st_size)
    assert sizes[0] < sizes[1]


def test_save_puts_a_transparent_picture_on_white_for_jpeg(run: Run, inputs: Path, output: Path) -> None:
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(inputs / "photo.png")
    run({"name": "load", "settings": {"paths": ["photo.png"]}}, {"name": "save", "settings": {"format": "jpeg"}})
    with Image.open(output / "photo.jpg") as image:
        assert image.getpixel((10, 10)) == (255, 255, 255)


def test_save_never_overwrites_a_file(run: Run, draw: Draw, output: Path) -> None:
    draw("photo.jpg")
    draw("other/photo.png")
    output.mkdir(parents=True)
    (output / "photo.png").write_text("already here")
    first = run({"name": "load", "settings": {"paths": ["photo.jpg", "other/photo.png"]}}, {"name": "save"})
    second = run(LOAD, {"name": "save"})
    assert first["files"] == ["photo-2.png", "photo-3.png"]
    assert second["files"] == ["photo-4.png"]
    assert (output / "photo.png").read_text() == "already here"


def test_save_leaves_no_half_written_file(run: Run, draw: Draw, output: Path) -> None:
    draw("photo.jpg")
    run(LOAD, {"name": "save"})
    assert [path.name for path in output.iterdir()] == ["photo.png"]


def test_save_passes_on_neither_place_nor_camera(run: Run, draw: Draw, output: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Secret Camera"
    draw("photo.jpg", exif=exif, comment=b"taken at home")
    for kind in ("jpeg", "webp", "png"):
        result = run(LOAD, {"name": "save", "settings": {"format": kind}})
        content = (output / result["files"][0]).read_bytes()
        assert b"Secret Camera" not in content
        assert b"taken at home" not in content


def test_save_says_when_the_output_directory_cannot_be_written_to(run: Run, draw: Draw, settings: Settings) -> None:
    draw("photo.jpg")
    settings.outputs.write_text("a file where a directory should be")
    with pytest.raises(PipelineError, match=r"output directory .*job-1 cannot be written to"):
        run(LOAD, {"name": "save"})


@pytest.mark.parametrize(
    "pattern",
    [
        "../{name}",
        "a/b",
        "a\\b",
        "",
        "   ",
        ".hidden",
        "{nam}",
        "{name.__class__}",
        "{name!r}",
        "{index:999999999}",
        "{name:>9}",
        "{",
        "{}",
        "{0}",
        "x" * 101,
        "a:b",
        "line\nbreak",
        "{index:03}/{name}",
    ],
)
def test_save_refuses_a_pattern_that_makes_no_plain_file_name(run: Run, pattern: str) -> None:
    with pytest.raises(InvalidJob) as refusal:
        run(LOAD, {"name": "save", "settings": {"pattern": pattern}})
    assert refusal.value.field == "stages[1].settings.pattern"


def test_save_makes_a_plain_name_of_a_strange_one(run: Run, inputs: Path) -> None:
    with Image.new("RGB", (4, 4)) as image:
        image.save(inputs / ("ä: {name}?\u202e" + "x" * 180 + ".png"))
    result = run({"name": "load", "settings": {"paths": ["."]}}, {"name": "save"})
    (name,) = result["files"]
    assert name.startswith("ä_ {name}__xxx")
    assert len(name.encode()) < 140


def test_the_sample_pipeline_makes_four_postcards(run: Run, settings: Settings, job: Any) -> None:
    import json

    from jobledger.workers.pipeline import PipelineRunner, validate_pipeline
    from jobledger.workers.pipeline.registry import installed_stages

    examples = Path(__file__).parents[3] / "examples"
    config = validate_pipeline(json.loads((examples / "pipeline.json").read_text()))
    at_home = settings.model_copy(update={"input_dirs": (examples / "pictures",)})
    result = PipelineRunner(installed_stages(), at_home, job).run(config)
    assert result["files"] == [
        "01-morning-lake.jpg",
        "02-tall-fjord.jpg",
        "03-winter-ridge.jpg",
        "04-polar-light.jpg",
    ]
    for name in result["files"]:
        with Image.open(Path(result["directory"]) / name) as postcard:
            assert postcard.size == (360, 240)
