"""Settings: defaults < file < environment < flags, and a wrong one is refused with one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobledger.errors import SettingsError
from jobledger.settings import load_settings


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_flags_win_over_the_environment_and_that_over_the_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "jobledger.toml").write_text("cancel_grace = 1\nheartbeat_interval = 11\npayload_limit = 2048\n")
    monkeypatch.setenv("JOBLEDGER_CANCEL_GRACE", "2")
    monkeypatch.setenv("JOBLEDGER_HEARTBEAT_INTERVAL", "22")

    settings = load_settings(cancel_grace=3)

    assert (settings.cancel_grace, settings.heartbeat_interval, settings.payload_limit) == (3, 22, 2048)


def test_a_flag_that_was_not_given_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBLEDGER_CANCEL_GRACE", "2")

    assert load_settings(cancel_grace=None).cancel_grace == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CANCEL_GRACE", "soon"),
        ("CANCEL_GRACE", "-1"),
        ("CANCEL_SIGNAL", "HUP"),
        ("PAYLOAD_LIMIT", "0"),
        ("HEARTBEAT_INTERVAL", "0"),
    ],
)
def test_a_wrong_setting_is_named_with_the_variable_that_sets_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"JOBLEDGER_{name}", value)

    with pytest.raises(SettingsError, match=f"JOBLEDGER_{name}") as refusal:
        load_settings()

    assert "\n" not in str(refusal.value)


def test_an_unknown_setting_in_the_file_is_refused_with_the_known_ones(here: Path) -> None:
    (here / "jobledger.toml").write_text("cancel_grase = 1\n")

    with pytest.raises(SettingsError, match=r"there is no setting 'cancel_grase'; known ones: .*cancel_grace"):
        load_settings()


def test_a_named_file_that_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBLEDGER_CONFIG", "elsewhere.toml")

    with pytest.raises(SettingsError, match=r"elsewhere\.toml \(JOBLEDGER_CONFIG\) does not exist"):
        load_settings()


def test_a_file_that_is_no_toml_is_refused_by_its_name(here: Path) -> None:
    (here / "jobledger.toml").write_text("= nonsense")

    with pytest.raises(SettingsError, match=r"jobledger\.toml"):
        load_settings()


def test_paths_do_not_depend_on_where_another_process_runs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(data_dir="data", history_url="sqlite:///ledger.db")
    monkeypatch.chdir("/")

    assert settings.data_dir == here / "data"
    assert settings.ledger_url == f"sqlite:///{here / 'ledger.db'}"


@pytest.mark.parametrize("url", ["postgresql://u:p@host/db", "postgresql:///db?host=/run", "sqlite:///:memory:"])
def test_other_ledgers_stay_as_they_are(url: str) -> None:
    assert load_settings(history_url=url).ledger_url == url


def test_secrets_are_not_shown() -> None:
    settings = load_settings(
        broker_url="redis://:hunter2@h/0", history_url="postgresql://u:hunter2@h/db", snapshot_key="k"
    )

    assert "hunter2" not in repr(settings) + str(settings)
