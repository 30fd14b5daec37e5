"""A job's own output directory: made when the first file is ready, and never overwriting one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from .errors import PipelineError
from .file_names import directory_name, safe_stem


class OutputDirectory:
    """The files of one job, in a directory of its own below ``base``.

    Args:
        base: The worker's output directory; nothing is written outside of it, links resolved.
        collection: A relative directory in between, if the pipeline names one.
        job_id: Names the directory; a pipeline that runs outside of a job gets a fresh name.
    """

    def __init__(self, base: Path, collection: str | None, job_id: str | None) -> None:
        self._base = base
        name = directory_name(job_id) if job_id else f"unqueued-{uuid4().hex[:12]}"
        self.path = base / (collection or "") / name
        #: The names of the files written by this run, in order.
        self.names: list[str] = []

    def write(self, stem: str, ending: str, write_to: Callable[[BinaryIO], object]) -> Path:
        """Write a file named ``stem`` + ``ending``, or the next free ``stem-2`` and so on, and return its path.

        The file appears under its name only when it is complete.

        Raises:
            PipelineError: when the directory cannot be written to.
        """
        try:
            path = self._write(safe_stem(stem), ending, write_to)
        except OSError as error:
            reason = error.strerror or str(error)
            raise PipelineError(f"The output directory {self.path} cannot be written to: {reason}.") from error
        self.names.append(path.name)
        return path

    def _write(self, stem: str, ending: str, write_to: Callable[[BinaryIO], object]) -> Path:
        self._make()
        draft = self.path / f".{uuid4().hex}.part"
        try:
            with draft.open("xb") as file:
                write_to(file)
            path = self._reserve(stem, ending)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        return path

    def _make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.path.resolve().is_relative_to(self._base.resolve()):
            raise PipelineError(
                f"The output directory {self.path} leads out of {self._base} through a link; remove it."
            )

    def _reserve(self, stem: str, ending: str) -> Path:
        for name in _names(stem, ending):
            path = self.path / name
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            except FileExistsError:
                continue
            return path
        raise AssertionError("names never run out")


def _names(stem: str, ending: str) -> Iterator[str]:
    yield f"{stem}{ending}"
    for number in count(2):
        yield f"{stem}-{number}{ending}"
