"""Draws the sample pictures again: ``python examples/make_sample_pictures.py [DIRECTORY [COUNT]]``."""

from __future__ import annotations

import sys
from pathlib import Path

from jobledger.workers.pipeline.sample_pictures import make_sample_pictures


def main(arguments: list[str]) -> None:
    """Draw into the named directory, by default the one beside this script, and name what was drawn."""
    directory = Path(arguments[0]) if arguments else Path(__file__).parent / "pictures"
    count = int(arguments[1]) if len(arguments) > 1 else 12
    for path in make_sample_pictures(directory, count):
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
