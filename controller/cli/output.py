"""What commands print: data on stdout, everything else on stderr; colours only on a terminal."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: The width of what is not a terminal: nothing is cut there.
_PIPE_WIDTH: Final = 1_000
STATUS_STYLES: Final = {
    "QUEUED": "cyan",
    "RUNNING": "yellow",
    "COMPLETED": "green",
    "FAILED": "bold red",
    "CANCELLED": "magenta",
}


def console() -> Console:
    """Return the console for data."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False, soft_wrap=False)
    return Console(highlight=False, width=_PIPE_WIDTH, no_color=True, force_terminal=False)


def show(renderable: RenderableType) -> None:
    """Print a table on stdout; elsewhere than on a terminal without the spaces that fill its lines."""
    out = console()
    if sys.stdout.isatty():
        out.print(renderable)
        return
    with out.capture() as captured:
        out.print(renderable)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)


def say(sentence: str) -> None:
    """Print a sentence on stdout."""
    print(shown(sentence), flush=True)


def note(sentence: str) -> None:
    """Print a remark on stderr, where it is in nobody's data."""
    print(shown(sentence), file=sys.stderr, flush=True)


def print_json(value: Any, *, indent: int = 2) -> None:
    """Print a value as JSON, and nothing else; ``indent=0`` makes one line of it."""
    data = msgspec.json.encode(value)
    text = msgspec.json.format(data, indent=indent).decode() if indent else data.decode()
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def shown(text: str) -> str:
    """Return a text as a terminal may show it: what a job wrote must not move the cursor or change the colours."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def one_line(text: str | None) -> str:
    """Return a text in one line."""
    return " ".join(shown(text or "").split())


def age(moment: datetime | None) -> str:
    """Return how long ago a moment was, in one unit."""
    if moment is None:
        return "-"
    return duration(max(0.0, (datetime.now(UTC) - moment).total_seconds()))


def duration(seconds: float | None) -> str:
    """Return a number of seconds for people."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size * 2:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def local_time(moment: datetime | None) -> str:
    """Return a moment on this user's clock."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else "-"


def terminal_width() -> int | None:
    """Return how many characters a line of this terminal holds; ``None`` elsewhere, where nothing is cut."""
    return console().width if sys.stdout.isatty() else None


def is_interactive() -> bool:
    """Whether stdout is a terminal that can show a live table."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
