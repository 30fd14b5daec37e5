"""The pages: links lead somewhere, and the settings are those that there are."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobledger.settings import ENVIRONMENT_PREFIX, Settings

ROOT = Path(__file__).parent.parent
SETTINGS_PAGE = (ROOT / "docs" / "settings.md").read_text()
SETTING = re.compile(r"^### `(\w+)`\n\n`(\w+)`, default: (unset|`[^`]+`)\. (\S.*)$", re.MULTILINE)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")])
LINK = re.compile(r"\]\(([^()\s]+)\)")


def test_the_page_of_settings_names_exactly_those_that_there_are() -> None:
    named = re.findall(r"^### `(\w+)`$", SETTINGS_PAGE, re.MULTILINE)
    assert sorted(named) == sorted(Settings.model_fields)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_is_told_with_its_variable_its_default_and_its_meaning(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_DATA_HOME")
    told = {found[0]: found[1:] for found in SETTING.findall(SETTINGS_PAGE)}
    variable, default, meaning = told[name]
    assert variable == f"{ENVIRONMENT_PREFIX}{name.upper()}"
    assert _told_default(default) == _real_default(name)
    assert meaning


def test_the_example_of_a_settings_file_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = re.findall(r"```toml\n(.*?)```", SETTINGS_PAGE, re.DOTALL)
    (tmp_path / "jobledger.toml").write_text(example)
    monkeypatch.chdir(tmp_path)
    assert Settings().model_fields_set == set(tomllib.loads(example)) != set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    assert [link for link in _relative_links(page) if not _leads_somewhere(page, link)] == []


def test_the_pages_have_links_to_check() -> None:
    links = {link for page in PAGES for link in _relative_links(page)}
    assert {"docs/architecture.md", "settings.md", "#the-fold"} <= links


@pytest.mark.parametrize("link", ["missing.md", "settings.md#no-such-heading", "#no-such-heading"])
def test_a_link_that_leads_nowhere_is_found(link: str) -> None:
    assert not _leads_somewhere(ROOT / "docs" / "settings.md", link)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_path_of_the_repository_that_a_page_names_exists(page: Path) -> None:
    rooms = "history|workers|controller|desktop|docs|examples|benchmarks|deploy|tests"
    named = re.findall(rf"`((?:{rooms})/[\w./-]*)`", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def _told_default(text: str) -> Any:
    if text == "unset":
        return None
    value = text.strip("`")
    return Path(value).expanduser() if value.startswith("~") else tomllib.loads(f"value = {value}")["value"]


def _real_default(name: str) -> Any:
    default = Settings.model_fields[name].get_default(call_default_factory=True)
    return list(default) if isinstance(default, tuple) else default


def _relative_links(page: Path) -> Iterator[str]:
    return (link for link in LINK.findall(page.read_text()) if "://" not in link)


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, heading = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not heading or heading in _headings(target))


def _headings(page: Path) -> set[str]:
    """The anchors that a page's headings get: lower case, without signs, words joined by hyphens."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}
