"""A job's exact message body, sealed so that only holders of the key can read it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from ..errors import SettingsError
from .job import Snapshot
from .journal import write_once

#: A reason that people read as ``can_retry=false, "no key"``.
NO_KEY = "no snapshot key is set here; set JOBLEDGER_SNAPSHOT_KEY (`jobledger token key` makes one)"


class SnapshotVault:
    """Seals and opens snapshots; the first key seals, every key opens."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        if not keys:
            raise SettingsError("A snapshot vault needs at least one key.")
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise SettingsError(
                "JOBLEDGER_SNAPSHOT_KEY is not a Fernet key (32 bytes in url-safe base64); "
                "`jobledger token key` makes one."
            ) from None
        self.fingerprints = tuple(fingerprint(key) for key in keys)

    def seal(self, content: object) -> Snapshot:
        """Return the sealed form of JSON content, verbatim: the order of its keys stays."""
        data = msgspec.json.encode(content)
        return Snapshot(
            sealed=self._fernet.encrypt(data).decode(),
            digest=hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest(),
            size=len(data),
            key_fingerprint=self.fingerprints[0],
        )

    def open(self, snapshot: Snapshot) -> bytes | None:
        """Return what was sealed, as JSON; ``None`` when none of the keys fits."""
        try:
            return self._fernet.decrypt(snapshot.sealed.encode())
        except InvalidToken:
            return None


def fingerprint(key: str) -> str:
    """Return a name for a key that does not tell the key."""
    return hashlib.sha256(b"jobledger-snapshot-key:" + key.encode()).hexdigest()[:12]


def new_key() -> str:
    """Return a fresh key."""
    return Fernet.generate_key().decode()


def local_key(data_dir: Path) -> str:
    """Return the key that belongs to a data directory, made at the first call; readable by its owner only."""
    path = data_dir / "snapshot.key"
    if not path.exists():
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_once(path, new_key())
    return path.read_bytes().decode(errors="replace").strip()
