"""A small file system that can be filled to its last byte."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

_SIZE = "8m"
_BLOCK = 65_536


class SmallDisk:
    """A mounted tmpfs; a plain directory where nobody may mount, and then it cannot be filled."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self._filler = directory / "filler"
        command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "none", str(directory)]
        self.can_be_filled = os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0

    def fill(self) -> None:
        """Write until nothing fits; whoever writes next comes as far as the end of its file's last page."""
        descriptor = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            _write_without_end(descriptor)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it."""
        if self.can_be_filled:
            subprocess.run(["umount", "-l", str(self.directory)], check=False)


def _write_without_end(descriptor: int) -> None:
    block = b"x" * _BLOCK
    while True:
        os.write(descriptor, block)
