"""Which files a pipeline may read, and where its own files go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobledger.errors import InvalidJob
from jobledger.workers.pipeline.errors import PictureRefused, PipelineError
from jobledger.workers.pipeline.input_files import find_pictures
from jobledger.workers.pipeline.output_directory import OutputDirectory
from PIL import Image

Run = Callable[..., dict[str, Any]]
Draw = Callable[..., Path]


@pytest.fixture
def secret_picture(tmp_path: Path) -> Path:
    """A picture outside of the input directory."""
    path = tmp_path / "private" / "secret.png"
    path.parent.mkdir()
    with Image.new("RGB", (4, 4)) as image:
        image.save(path)
    return path


def test_without_input_directories_nothing_is_read() -> None:
    with pytest.raises(PictureRefused, match="JOBLEDGER_INPUT_DIRS"):
        find_pictures(["a.png"], ())


def test_an_absolute_path_inside_is_read(inputs: Path, draw: Draw) -> None:
    path = draw("photo.jpg")
    assert find_pictures([str(path)], (inputs,)) == [path]


@pytest.mark.parametrize("shape", ["{secret}", "../private/secret.png", "sub/../../private/secret.png", "../private"])
def test_a_path_that_leads_outside_is_refused(inputs: Path, secret_picture: Path, shape: str) -> None:
    with pytest.raises(PictureRefused, match="is outside of the directories"):
        find_pictures([shape.format(secret=secret_picture)], (inputs,))


def test_a_missing_file_outside_is_refused_like_an_existing_one(
    inputs: Path, tmp_path: Path, secret_picture: Path
) -> None:
    problems = []
    for name in ("secret.png", "nothing.png"):
        with pytest.raises(PictureRefused) as refusal:
            find_pictures([str(tmp_path / "private" / name)], (inputs,))
        problems.append(str(refusal.value).replace(name, ""))
    assert problems[0] == problems[1]


def test_a_link_to_a_file_outside_is_refused(inputs: Path, secret_picture: Path) -> None:
    (inputs / "innocent.png").symlink_to(secret_picture)
    with pytest.raises(PictureRefused, match=r"'innocent\.png' is outside"):
        find_pictures(["innocent.png"], (inputs,))


def test_a_link_to_a_folder_outside_is_refused(inputs: Path, secret_picture: Path) -> None:
    (inputs / "folder").symlink_to(secret_picture.parent)
    for path in ("folder", "folder/secret.png"):
        with pytest.raises(PictureRefused, match="is outside"):
            find_pictures([path], (inputs,))


def test_a_link_out_of_a_folder_is_refused_by_its_name(inputs: Path, draw: Draw, secret_picture: Path) -> None:
    draw("folder/1.png")
    (inputs / "folder" / "2.png").symlink_to(secret_picture)
    with pytest.raises(PictureRefused, match=r"2\.png' is outside"):
        find_pictures(["folder"], (inputs,))


def test_a_link_inside_is_followed(inputs: Path, draw: Draw) -> None:
    path = draw("photo.jpg")
    (inputs / "alias.jpg").symlink_to(path)
    assert find_pictures(["alias.jpg"], (inputs,)) == [path]


def test_an_input_directory_may_itself_be_a_link(inputs: Path, draw: Draw, tmp_path: Path) -> None:
    path = draw("photo.jpg")
    (tmp_path / "entrance").symlink_to(inputs)
    assert find_pictures(["photo.jpg"], (tmp_path / "entrance",)) == [path]


def test_a_neighbour_whose_name_begins_alike_is_outside(inputs: Path, tmp_path: Path) -> None:
    neighbour = tmp_path / "inputs-of-others"
    neighbour.mkdir()
    (neighbour / "a.png").touch()
    with pytest.raises(PictureRefused, match="is outside"):
        find_pictures([str(neighbour / "a.png")], (inputs,))


def test_a_circle_of_links_is_refused(inputs: Path) -> None:
    (inputs / "one.png").symlink_to(inputs / "two.png")
    (inputs / "two.png").symlink_to(inputs / "one.png")
    with pytest.raises(PictureRefused, match=r"one\.png"):
        find_pictures(["one.png"], (inputs,))


def test_a_path_that_no_file_system_takes_is_refused(inputs: Path) -> None:
    for path in ("a\0b.png", "x" * 5_000):
        with pytest.raises(PictureRefused):
            find_pictures([path], (inputs,))


def test_a_relative_path_is_looked_up_in_every_input_directory(inputs: Path, draw: Draw, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    path = draw("photo.jpg")
    assert find_pictures(["photo.jpg"], (other, inputs)) == [path]


def test_files_go_into_a_directory_of_the_job(tmp_path: Path) -> None:
    path = OutputDirectory(tmp_path / "out", "holiday", "job-7").write("a", ".png", lambda file: file.write(b"x"))
    assert path == tmp_path / "out" / "holiday" / "job-7" / "a.png"


@pytest.mark.parametrize("job_id", ["../../escape", "/etc", "..", ".hidden", "a/b", "", "x" * 300, "nul\0", "ä"])
def test_a_strange_job_id_makes_a_plain_directory(tmp_path: Path, job_id: str) -> None:
    path = OutputDirectory(tmp_path, None, job_id).write("a", ".png", lambda file: file.write(b"x"))
    assert path.parent.parent == tmp_path


def test_two_strange_job_ids_never_share_a_directory(tmp_path: Path) -> None:
    assert OutputDirectory(tmp_path, None, "a/b").path != OutputDirectory(tmp_path, None, "a_b").path


def test_two_runs_outside_of_a_job_never_share_a_directory(tmp_path: Path) -> None:
    assert OutputDirectory(tmp_path, None, None).path != OutputDirectory(tmp_path, None, None).path


def test_a_link_out_of_the_output_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "holiday").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PipelineError, match="through a link"):
        OutputDirectory(tmp_path / "out", "holiday", "job-1").write("a", ".png", lambda file: file.write(b"x"))


def test_a_file_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise OSError(28, "No space left on device")

    directory = OutputDirectory(tmp_path, None, "job-1")
    with pytest.raises(PipelineError, match="No space left on device"):
        directory.write("a", ".png", fail)
    assert list(directory.path.iterdir()) == []
    assert directory.names == []


@pytest.mark.parametrize("directory", ["/etc", "..", "a/../b", "~/x", "", ".", "a\\b", "C:/x", "a\nb"])
def test_an_output_directory_that_leads_away_is_refused_at_submission(run: Run, directory: str) -> None:
    with pytest.raises(InvalidJob) as refusal:
        run({"name": "load"}, output={"directory": directory})
    assert refusal.value.field == "output.directory"
