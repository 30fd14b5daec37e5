"""Snapshots: exact, sealed, and only for holders of a key."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jobledger.errors import SettingsError
from jobledger.history.snapshot import SnapshotVault, fingerprint, local_key, new_key

BODY = {
    "args": ["a prompt", 7, 1.0, None, True, "\u2028 \U0001f30a \u0000"],
    "kwargs": {"zebra": 1, "api_key": "s3cret-value", "ant": {"b": [], "a": 2**70}},
}


@pytest.fixture
def vault() -> SnapshotVault:
    return SnapshotVault((new_key(),))


def test_what_was_sealed_comes_back_exactly_with_its_keys_in_their_order(vault: SnapshotVault) -> None:
    opened = vault.open(vault.seal(BODY))
    assert opened is not None
    assert json.loads(opened) == BODY
    assert opened == msgspec.json.encode(BODY)


def test_a_sealed_snapshot_shows_nothing_of_its_content(vault: SnapshotVault) -> None:
    snapshot = vault.seal(BODY)
    assert b"s3cret-value" not in msgspec.json.encode(snapshot)
    assert snapshot.size == len(msgspec.json.encode(BODY))


def test_equal_contents_have_equal_digests_in_any_order_and_under_any_key(vault: SnapshotVault) -> None:
    other = SnapshotVault((new_key(),))
    assert vault.seal({"a": 1, "b": {"c": 2, "d": 3}}).digest == other.seal({"b": {"d": 3, "c": 2}, "a": 1}).digest
    assert vault.seal({"a": 1}).sealed != vault.seal({"a": 1}).sealed


@pytest.mark.parametrize("other", [{"a": 1.0}, {"a": "1"}, {"a": True}, {"a": [1]}, {"a": None}, {}])
def test_different_contents_have_different_digests(vault: SnapshotVault, other: Any) -> None:
    assert vault.seal({"a": 1}).digest != vault.seal(other).digest


def test_after_a_change_of_keys_the_old_one_still_opens_and_the_new_one_seals() -> None:
    old, new = new_key(), new_key()
    snapshot = SnapshotVault((old,)).seal(BODY)
    rotated = SnapshotVault((new, old))
    assert rotated.open(snapshot) is not None
    assert rotated.seal(BODY).key_fingerprint == fingerprint(new) == rotated.fingerprints[0]
    assert SnapshotVault((new,)).open(snapshot) is None


@pytest.mark.parametrize("sealed", ["", "garbage", "gAAAA", "\udcff".encode("utf-8", "replace").decode(), "\u20ac"])
def test_a_damaged_snapshot_does_not_open(vault: SnapshotVault, sealed: str) -> None:
    assert vault.open(msgspec.structs.replace(vault.seal(BODY), sealed=sealed)) is None


def test_a_changed_byte_is_noticed(vault: SnapshotVault) -> None:
    snapshot = vault.seal(BODY)
    middle = len(snapshot.sealed) // 2
    flipped = "A" if snapshot.sealed[middle] != "A" else "B"
    changed = snapshot.sealed[:middle] + flipped + snapshot.sealed[middle + 1 :]
    assert vault.open(msgspec.structs.replace(snapshot, sealed=changed)) is None


@pytest.mark.parametrize("key", ["", "short", "x" * 44, "\u20ac" * 44, "pBMEjpR4vJTMWSc7nz6OvBsw7TtL0WxTt1B3cRhD9y"])
def test_a_wrong_key_is_refused_without_being_told(key: str) -> None:
    with pytest.raises(SettingsError, match=r"JOBLEDGER_SNAPSHOT_KEY is not a Fernet key") as refusal:
        SnapshotVault((key,))
    assert not key or key not in str(refusal.value)


def test_a_vault_without_a_key_is_refused() -> None:
    with pytest.raises(SettingsError, match="at least one key"):
        SnapshotVault(())


def test_a_fingerprint_names_a_key_without_telling_it() -> None:
    key = new_key()
    assert fingerprint(key) == fingerprint(key) != fingerprint(new_key())
    assert fingerprint(key) not in key


class TestTheKeyOfADataDirectory:
    def test_is_made_once_and_is_for_its_owner_only(self, tmp_path: Path) -> None:
        key = local_key(tmp_path / "data")
        SnapshotVault((key,))
        assert local_key(tmp_path / "data") == key
        assert (tmp_path / "data" / "snapshot.key").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        assert [path.name for path in (tmp_path / "data").iterdir()] == ["snapshot.key"]

    def test_is_the_same_for_all_threads_that_ask_first_together(self, tmp_path: Path) -> None:
        together = threading.Barrier(8)

        def ask(round_number: int) -> str:
            together.wait()
            return local_key(tmp_path / str(round_number))

        with ThreadPoolExecutor(8) as threads:
            for number in range(50):
                assert len(set(threads.map(ask, [number] * 8))) == 1

    def test_is_the_same_for_all_processes_that_ask_first_together(self, tmp_path: Path) -> None:
        code = "import sys; from pathlib import Path; from jobledger.history.snapshot import local_key\n"
        code += "sys.stdin.read(); print(local_key(Path(sys.argv[1])))"
        command = [sys.executable, "-c", code, str(tmp_path / "data")]
        asking = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)]
        for program in asking:
            assert program.stdin is not None
            program.stdin.close()
        keys = [program.stdout.read() for program in asking if program.stdout is not None]
        assert [program.wait() for program in asking] == [0] * 4
        assert {key.decode().strip() for key in keys} == {local_key(tmp_path / "data")}
        for program in asking:
            assert program.stdout is not None
            program.stdout.close()

    def test_that_somebody_damaged_is_refused_by_the_vault(self, tmp_path: Path) -> None:
        (tmp_path / "snapshot.key").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(SettingsError):
            SnapshotVault((local_key(tmp_path),))
