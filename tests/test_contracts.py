"""Who may import and call whom: the contracts, what they cannot say, and the proof that each one bites."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("history", "workers", "controller", "desktop")
OUTSIDE = ("tests", "examples", "benchmarks")

#: For every contract, a line that breaks it and the module it is written into.
VIOLATIONS = {
    "front-door": ("settings.py", "from .workers import installation"),
    "history": ("history/job.py", "import redis"),
    "workers": ("workers/__init__.py", "from ..controller import leader"),
    "jobs-never-touch-the-database": (
        "workers/__init__.py",
        "from ..history.sql_store import SqlJobHistoryStore",
    ),
    "controller": ("controller/__init__.py", "from ..desktop import panel"),
    "desktop": ("desktop/__init__.py", "from ..controller import queue_execution_controller"),
    "faces": ("controller/cli/reading.py", "from ...history.sql_store import SqlJobHistoryStore"),
    "sql": ("controller/__init__.py", "from sqlalchemy import text"),
    "one-ledger": ("controller/retry.py", "from ..history.sql_store import SqlJobHistoryStore"),
    "broker-hands": ("controller/retry.py", "from .broker_queues import BrokerQueues"),
}

#: What the desktop may import of the package, besides itself.
DESKTOP_MAY_IMPORT = {"jobledger.errors", "jobledger.controller.client", "jobledger.controller.job_service"}

#: Calls that publish, remove or broadcast, and the modules of the controller that may make them.
BROKER_CALLS = {
    "apply_async",
    "send_task",
    "delay",
    "broadcast",
    "revoke",
    "purge",
    "basic_publish",
    "lrem",
}
MAY_CALL_THE_BROKER = {
    "controller/queue_execution_controller.py",
    "controller/leader.py",
    "controller/broker_queues.py",
    "controller/node_inquiry.py",
}


def test_every_import_contract_is_kept() -> None:
    result = _lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


def test_every_contract_has_a_violation_that_shows_it_bites() -> None:
    config = ConfigParser()
    config.read(ROOT / ".importlinter")
    contracts = {section.removeprefix("importlinter:contract:") for section in config.sections()} - {"importlinter"}
    assert contracts == set(VIOLATIONS)


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_a_violating_import_breaks_its_contract(contract: str, tmp_path: Path) -> None:
    copy = _copy_of_the_package(tmp_path)
    module, line = VIOLATIONS[contract]
    assert _lint_imports(copy, contract).returncode == 0
    with (copy / "jobledger" / module).open("a") as file:
        file.write(f"\n{line}\n")
    result = _lint_imports(copy, contract)
    assert result.returncode == 1, result.stdout
    assert "0 kept, 1 broken" in result.stdout


def test_inside_the_package_imports_are_relative_and_pass_the_front_door_by() -> None:
    for path in _package_files():
        # Alembic loads a migration by its file, which stands in no package then.
        assert path.parent.name == "versions" or _absolute_imports(_parse(path)) == [], path
        assert "jobledger" not in _own_imports(path, _parse(path)), path


@pytest.mark.parametrize("line", ["import jobledger", "from jobledger.history.job import JobStatus"])
def test_an_import_of_ourselves_by_name_is_found(line: str) -> None:
    assert _absolute_imports(ast.parse(line)) == [line]


def test_an_import_through_the_front_door_is_found() -> None:
    assert _own_imports(ROOT / "workers" / "node.py", ast.parse("from .. import JobStatus")) == {"jobledger"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_the_house_so_that_a_stray_import_of_it_fails(room: str) -> None:
    imports = [node for node in ast.walk(_parse(ROOT / room / "__init__.py")) if isinstance(node, ast.ImportFrom)]
    assert any(node.level == 2 for node in imports)


def test_tests_examples_and_benchmarks_use_the_installed_package() -> None:
    files = [path for folder in OUTSIDE for path in sorted((ROOT / folder).rglob("*.py"))]
    assert files
    assert [f"{path}: {name}" for path in files for name in _imports_of_bare_rooms(path, _parse(path))] == []


@pytest.mark.parametrize(
    "line",
    [
        "import history",
        "from workers.priorities import Priority",
        "from .. import errors",
        "from ...workers import app",
    ],
)
def test_an_import_of_a_bare_room_is_found(line: str) -> None:
    assert _imports_of_bare_rooms(ROOT / "tests" / "history" / "test_ids.py", ast.parse(line)) == [line]


@pytest.mark.parametrize("line", ["from .recount import differences", "from ..postgresql import administer"])
def test_an_import_of_a_helper_among_the_tests_is_none_of_a_room(line: str) -> None:
    assert _imports_of_bare_rooms(ROOT / "tests" / "history" / "test_ids.py", ast.parse(line)) == []


def test_the_tests_are_no_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_the_desktop_imports_only_the_service_and_its_client() -> None:
    for path in (ROOT / "desktop").rglob("*.py"):
        foreign = {name for name in _own_imports(path, _parse(path)) if not name.startswith("jobledger.desktop")}
        assert foreign <= DESKTOP_MAY_IMPORT, path


def test_the_desktop_rule_sees_every_form_of_import() -> None:
    source = "from ..controller.leader import Leader\nfrom ..history import job\nfrom . import panel\nimport json"
    found = _own_imports(ROOT / "desktop" / "panel.py", ast.parse(source))
    assert found == {"jobledger.controller.leader", "jobledger.history", "jobledger.desktop"}


def test_only_the_queue_execution_controller_and_the_leader_publish_remove_or_broadcast() -> None:
    for path in sorted((ROOT / "controller").rglob("*.py")) + sorted((ROOT / "desktop").rglob("*.py")):
        if path.relative_to(ROOT).as_posix() not in MAY_CALL_THE_BROKER:
            assert _broker_calls(_parse(path)) == [], path


@pytest.mark.parametrize("call", ["task.delay(1)", "app.control.broadcast('x')", "app.send_task('t')"])
def test_a_call_that_publishes_is_found(call: str) -> None:
    assert _broker_calls(ast.parse(call)) == [call]


def test_no_module_but_the_front_door_hides_an_import_from_the_contracts() -> None:
    for path in _package_files():
        if path != ROOT / "__init__.py":
            assert _hidden_imports(_parse(path)) == [], path


def test_a_hidden_import_is_found() -> None:
    assert _hidden_imports(ast.parse("import_module('.controller', 'jobledger')")) == [
        "import_module('.controller', 'jobledger')"
    ]
    assert _hidden_imports(ast.parse("import_module(users_module)")) == []


def _lint_imports(folder: Path, contract: str | None = None) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("lint-imports"))
    command = [program, "--no-logo", "--no-cache", "--config", ".importlinter"]
    if contract:
        command += ["--contract", contract]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def _copy_of_the_package(folder: Path) -> Path:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for package in pyproject["tool"]["setuptools"]["packages"]:
        room = Path(*package.split(".")[1:])
        (folder / "jobledger" / room).mkdir(parents=True)
        for module in (ROOT / room).glob("*.py"):
            shutil.copy(module, folder / "jobledger" / room)
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


def _package_files() -> list[Path]:
    return [
        *sorted(ROOT.glob("*.py")),
        *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))),
    ]


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _absolute_imports(tree: ast.Module) -> list[str]:
    return [ast.unparse(node) for node, name in _imports(tree) if name.split(".")[0] == "jobledger"]


def _imports_of_bare_rooms(path: Path, tree: ast.Module) -> list[str]:
    bare = {*ROOMS, "settings", "errors"}
    return [
        ast.unparse(node)
        for node, name in _imports(tree)
        if (not _is_helper(path, name) if name.startswith(".") else name.split(".")[0] in bare)
    ]


def _is_helper(path: Path, name: str) -> bool:
    """Whether a relative import leads to a module that stands among the tests."""
    if name == ".":
        return path.is_relative_to(ROOT / "tests")
    rest = name.lstrip(".")
    file = path.parents[len(name) - len(rest) - 1].joinpath(*rest.split(".")).with_suffix(".py")
    return file.is_relative_to(ROOT / "tests") and file.exists()


def _own_imports(path: Path, tree: ast.Module) -> set[str]:
    package = ["jobledger", *path.relative_to(ROOT).parent.parts]
    return {_absolute(name, package) for _, name in _imports(tree) if name.startswith((".", "jobledger"))}


def _absolute(name: str, package: list[str]) -> str:
    rest = name.lstrip(".")
    level = len(name) - len(rest)
    base = package[: len(package) - level + 1] if level else []
    return ".".join([*base, rest]).strip(".")


def _imports(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node, "." * node.level + (node.module or "")


def _broker_calls(tree: ast.Module) -> list[str]:
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in BROKER_CALLS
    ]


def _hidden_imports(tree: ast.Module) -> list[str]:
    return [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call) and _names_us(node)]


def _names_us(call: ast.Call) -> bool:
    if ast.unparse(call.func).split(".")[-1] not in {"import_module", "__import__"} or not call.args:
        return False
    target = call.args[0]
    return isinstance(target, ast.Constant) and str(target.value).startswith((".", "jobledger"))
