"""The jobs of the demo, and the pictures that they work on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

from ..errors import SettingsError
from ..workers.pipeline.imaging import READ_ENDINGS
from ..workers.priorities import Priority

#: How many picture jobs there are besides the ones that something happens to.
PICTURE_COUNT: Final = 27
#: So many pictures that the job cannot end before somebody has seen it run and cancelled it.
_ALBUM_SIZE: Final = 2_000
_SIZE: Final = (2_400, 1_600)
_LEVELS: Final = (Priority.LOW, Priority.NORMAL, Priority.HIGH)
_FORMATS: Final = ("jpeg", "webp", "png")


class Role(StrEnum):
    """What the demo does with a job."""

    #: It runs to its end.
    PICTURE = "picture"
    #: It is cancelled while it runs.
    ALBUM = "album"
    #: It fails, because its picture is not there.
    MISSING = "missing"
    #: It is cancelled while it waits.
    WAITING = "waiting"
    #: It repeats the one that failed, after the picture has turned up.
    RETRY = "retry"


@dataclass(frozen=True, kw_only=True)
class DemoJob:
    """One job of the demo; ``config`` is its pipeline."""

    role: Role
    title: str
    priority: Priority
    config: dict[str, Any]


def demo_jobs(pictures: Sequence[Path], samples: Sequence[Path], missing: Path) -> list[DemoJob]:
    """Return the jobs in the order of their submission: the urgent ones do not come first.

    Where something is to happen to a job its pictures are samples, since one of the user's may be damaged.
    """
    album = [str(path) for path in islice(cycle(samples), _ALBUM_SIZE)]
    return [
        DemoJob(
            role=Role.ALBUM,
            title="a long album",
            priority=Priority.HIGH,
            config=_pipeline("a long album", album, "jpeg"),
        ),
        *_picture_jobs(pictures),
        DemoJob(
            role=Role.MISSING,
            title=missing.name,
            priority=Priority.HIGH,
            config=_pipeline(missing.name, [str(missing)], "jpeg"),
        ),
        DemoJob(
            role=Role.WAITING,
            title="a change of mind",
            priority=Priority.LOW,
            config=_pipeline("a change of mind", [str(samples[0])], "png"),
        ),
    ]


def _picture_jobs(pictures: Sequence[Path]) -> Iterator[DemoJob]:
    for number, path in enumerate(islice(cycle(pictures), PICTURE_COUNT)):
        yield DemoJob(
            role=Role.PICTURE,
            title=path.name,
            priority=_LEVELS[number % len(_LEVELS)],
            config=_pipeline(path.name, [str(path)], _FORMATS[number % len(_FORMATS)]),
        )


def _pipeline(title: str, paths: list[str], picture_format: str) -> dict[str, Any]:
    width, height = _SIZE
    return {
        "pack_name": title,
        "input": {"paths": paths},
        "stages": [
            {"name": "load"},
            {"name": "resize", "settings": {"width": width, "height": height, "mode": "cover", "enlarge": True}},
            {"name": "enhance", "settings": {"contrast": 1.1, "colour": 1.15}},
            {"name": "watermark", "settings": {"text": "Jobledger", "position": "bottom-right", "opacity": 0.5}},
            {"name": "save", "settings": {"quality": 85}},
        ],
        "output": {"format": picture_format},
    }


def pictures_in(folder: Path) -> list[Path]:
    """Return some pictures of a folder and what is below it, without following links; they are only read.

    Raises:
        SettingsError: when it is no folder, or holds no picture.
    """
    if not folder.is_dir():
        raise SettingsError(f"--pictures: {folder} is not a folder.")
    found = list(islice(_walk(folder), PICTURE_COUNT))
    if not found:
        raise SettingsError(f"--pictures: {folder} holds no pictures ({', '.join(READ_ENDINGS)}).")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix.lower() in READ_ENDINGS and not name.startswith(".") and not path.is_symlink():
                yield path
