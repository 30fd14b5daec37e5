"""The root is the package: its list of rooms, what the wheel holds, and the wheel in an empty environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("history", "workers", "controller", "desktop")
NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")

pytestmark = pytest.mark.timeout(900)


def test_the_packages_list_names_every_folder_with_an_init() -> None:
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}
    names = {".".join(["jobledger", *folder.relative_to(ROOT).parts]) for folder in folders}
    assert sorted(_packages()) == sorted(names | {"jobledger"})


def test_every_folder_with_python_files_in_a_room_is_a_package() -> None:
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_no_module_stands_in_the_root_but_the_four_that_belong_there() -> None:
    assert {path.name for path in ROOT.glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "settings.py",
        "errors.py",
    }


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == _package_files()


def test_the_wheel_carries_types_migrations_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "jobledger/py.typed" in names
    assert "jobledger/history/migrations/env.py" in names
    versions = [name for name in names if name.startswith("jobledger/history/migrations/versions/")]
    assert len(versions) > 1
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_import_jobledger_loads_neither_celery_nor_sql(slim: Path, tmp_path: Path) -> None:
    heavy = "[name for name in ('celery', 'kombu', 'sqlalchemy', 'alembic', 'redis') if name in sys.modules]"
    assert _run(slim, tmp_path, "-c", f"import jobledger, sys; print({heavy})").stdout.strip() == "[]"


def test_a_slim_install_is_enough_for_a_worker_of_ones_own(slim: Path, tmp_path: Path) -> None:
    program = "import celery, jobledger; jobledger.install(celery.Celery(broker='memory://')); print('fine')"
    result = _run(slim, tmp_path, "-W", "error", "-c", program)
    assert result.stdout.strip().endswith("fine"), result.stderr


def test_every_public_name_can_be_imported(slim: Path, tmp_path: Path) -> None:
    program = "import jobledger as j; print(len([getattr(j, name) for name in j.__all__]))"
    result = _run(slim, tmp_path, "-c", program)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) <= 12


@pytest.mark.parametrize("room", [*ROOMS, "settings", "errors"])
def test_no_room_claims_a_name_of_its_own_in_the_environment(slim: Path, tmp_path: Path, room: str) -> None:
    result = _run(slim, tmp_path, "-c", f"import {room}")
    assert result.returncode == 1
    assert f"No module named '{room}'" in result.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imported_from_the_root_by_its_bare_name_fails_at_once(slim: Path, room: str) -> None:
    result = _run(slim, ROOT, "-c", f"import {room}")
    assert result.returncode == 1
    assert "attempted relative import beyond top-level package" in result.stderr


def test_the_console_script_and_the_module_show_the_same_help(complete: Path, tmp_path: Path) -> None:
    script = _run(complete.with_name("jobledger"), tmp_path, "--help")
    module = _run(complete, tmp_path, "-m", "jobledger", "--help")
    assert script.returncode == 0, script.stderr
    assert "demo" in script.stdout
    assert script.stdout == module.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist of a copy: what was left in ``build/`` here must not get into it."""
    copy = tmp_path_factory.mktemp("source") / "any folder name"
    shutil.copytree(ROOT, copy, ignore=NOT_SOURCE)
    dist = tmp_path_factory.mktemp("dist")
    build = _run(Path(sys.executable), copy, "-m", "build", "--outdir", str(dist), str(copy))
    assert build.returncode == 0, build.stdout + build.stderr
    (wheel,) = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def slim(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds the wheel and what it needs, without extras."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    _pip_install(python, str(wheel))
    return python


@pytest.fixture(scope="module")
def complete(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds the wheel with the extras that the README names."""
    folder = tmp_path_factory.mktemp("complete")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    _pip_install(python, f"{wheel}[controller,pictures]")
    return python


def _pip_install(python: Path, requirement: str) -> None:
    options = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    result = _run(python, python.parent, *options, requirement)
    assert result.returncode == 0, result.stdout + result.stderr


def _run(program: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _packages() -> list[str]:
    packages: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    return packages


def _package_files() -> set[str]:
    folders = [Path(*package.split(".")[1:]) for package in _packages()]
    modules = {(folder / path.name).as_posix() for folder in folders for path in (ROOT / folder).glob("*.py")}
    return {f"jobledger/{module}" for module in modules | {"py.typed"}}
