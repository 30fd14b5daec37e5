"""The README: what it promises exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_first_forty_lines_say_how_to_try_to_test_and_to_install_it() -> None:
    beginning = "\n".join(README.splitlines()[:40])
    for words in ("make demo", "make test", "jobledger.install(app)"):
        assert words in beginning


def test_the_test_command_stands_in_the_block_after_its_marker() -> None:
    (block,) = re.findall(r"<!-- test command -->\n```sh\n(.*?)\n```", README, re.DOTALL)
    assert block == "make test"


def test_the_table_of_commands_names_the_commands_that_there_are() -> None:
    promised = set(re.findall(r"^\| `jobledger ([a-z-]+)", README, re.MULTILINE))
    program = Path(sys.executable).with_name("jobledger")
    environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    shown = subprocess.run([program, "--help"], env=environment, capture_output=True, text=True, check=True).stdout
    commands = shown[shown.index("Commands") :]
    assert promised == set(re.findall(r"^\W+([a-z][a-z-]+) {2,}", commands, re.MULTILINE))


def test_the_example_of_install_runs(tmp_path: Path) -> None:
    example = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    assert len(example.splitlines()) <= 12
    program = f"{example}\nship([1, 2])\nprint(app.conf.task_default_priority)"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().isdigit(), "install gives jobs without a priority one"


def test_the_rooms_that_it_shows_are_those_that_there_are() -> None:
    shown = re.findall(r"`([a-z]+)/`", README[README.index("| room |") : README.index("## Commands")])
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= set(shown)
    assert [folder for folder in shown if not (ROOT / folder).is_dir()] == []
