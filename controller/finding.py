"""What the doctor says about one thing that it looked at."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Severity(StrEnum):
    """How much a finding matters."""

    #: As it should be.
    OK = "ok"
    #: Worth knowing; nothing that was promised is broken.
    NOTE = "note"
    #: Something that was promised does not hold.
    SERIOUS = "serious"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    severity: Severity
    #: A word: ``broker``, ``ledger``, ``recording``, …
    subject: str
    what: str
    consequence: str = ""
    remedy: str = ""


def ok(subject: str, what: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(severity=Severity.OK, subject=subject, what=what)


def note(subject: str, what: str, consequence: str = "", remedy: str = "") -> Finding:
    """Return what is worth knowing."""
    return Finding(severity=Severity.NOTE, subject=subject, what=what, consequence=consequence, remedy=remedy)


def serious(subject: str, what: str, consequence: str = "", remedy: str = "") -> Finding:
    """Return what must be mended."""
    return Finding(severity=Severity.SERIOUS, subject=subject, what=what, consequence=consequence, remedy=remedy)
