"""Which files a pipeline may read: those inside the worker's input directories, links resolved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import PictureRefused
from .imaging import READ_ENDINGS

_SHOWN_PATH = 300


def find_pictures(paths: Sequence[str], input_dirs: Sequence[Path], *, recursive: bool = False) -> list[Path]:
    """Return the picture files that ``paths`` name, in their order; a folder gives its pictures by name.

    A relative path is looked up in each of the input directories. The returned paths hold no links.

    Raises:
        PictureRefused: naming the path that is missing, leads outside, or holds no picture.
    """
    allowed = [directory.expanduser().resolve() for directory in input_dirs]
    if not allowed:
        raise PictureRefused(
            "This worker may not read any pictures: its setting input_dirs is empty. "
            "Set JOBLEDGER_INPUT_DIRS to the directories that pipelines may read from."
        )
    return [file for path in paths for file in _pictures_of(path, allowed, recursive)]


def _pictures_of(path: str, allowed: list[Path], recursive: bool) -> Iterator[Path]:
    place = _located(path, allowed)
    if place.is_dir():
        yield from _pictures_in(place, path, allowed, recursive)
    else:
        yield place


def _located(path: str, allowed: list[Path]) -> Path:
    candidates = [_resolved(directory / path, path) for directory in allowed]
    inside = [candidate for candidate in candidates if _is_inside(candidate, allowed)]
    if not inside:
        raise _outside(path, allowed)
    found = next((candidate for candidate in inside if _is_readable(candidate)), None)
    if found is None:
        raise PictureRefused(f"The picture {_shown(path)} does not exist; it was looked for as {_listed(inside)}.")
    return found


def _resolved(candidate: Path, path: str) -> Path:
    try:
        return candidate.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise PictureRefused(f"The path {_shown(path)} cannot be followed: {error}.") from None


def _is_readable(path: Path) -> bool:
    """A file or a folder, not a pipe or a device that would keep the job waiting."""
    try:
        return path.is_file() or path.is_dir()
    except OSError:
        return False


def _is_inside(path: Path, allowed: list[Path]) -> bool:
    return any(path.is_relative_to(directory) for directory in allowed)


def _outside(path: str, allowed: list[Path]) -> PictureRefused:
    return PictureRefused(
        f"The path {_shown(path)} is outside of the directories that this worker may read ({_listed(allowed)}). "
        "Move the picture there, or add its directory to JOBLEDGER_INPUT_DIRS on the worker."
    )


def _listed(paths: list[Path]) -> str:
    return ", ".join(_shown(str(path)) for path in dict.fromkeys(paths))


def _shown(path: str) -> str:
    return repr(path if len(path) <= _SHOWN_PATH else path[: _SHOWN_PATH - 1] + "…")


def _pictures_in(folder: Path, path: str, allowed: list[Path], recursive: bool) -> Iterator[Path]:
    entries = folder.rglob("*") if recursive else folder.iterdir()
    found = sorted(entry for entry in entries if _looks_like_picture(entry.relative_to(folder)))
    if not found:
        raise PictureRefused(f"The folder {_shown(path)} holds no pictures ({', '.join(READ_ENDINGS)}).")
    for entry in found:
        target = _resolved(entry, str(entry))
        if not _is_inside(target, allowed):
            raise _outside(str(entry), allowed)
        if target.is_file():
            yield target


def _looks_like_picture(relative: Path) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    return relative.suffix.lower() in READ_ENDINGS and not hidden
