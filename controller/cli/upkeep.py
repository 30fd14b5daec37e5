"""The commands that look after an installation: doctor, db, token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from ...history.redaction import hide_password
from .acting import JsonFlag
from .exit_codes import ExitCode
from .flags import current_settings, with_settings
from .help import help_of
from .output import one_line, print_json, say, show

if TYPE_CHECKING:
    from rich.table import Table

    from ..doctor import Finding

_STYLES: Final = {"ok": "green", "note": "yellow", "serious": "bold red"}

db = typer.Typer(no_args_is_help=True, help="Look after the ledger's schema: check, upgrade, stamp.")
token = typer.Typer(no_args_is_help=True, help="Make secrets: key.")


def doctor(
    as_json: JsonFlag = False,
) -> int:
    """Check settings, broker, ledger, nodes, recording and the leader, and say what to mend.

    Each finding is ok, a note, or serious; exit code 1 says that something is serious. It changes nothing.

    \b
    jobledger doctor
    jobledger doctor --json --broker-url redis://queue.example:6379/0
    """
    from ..doctor import examine

    findings = examine(current_settings())
    if as_json:
        print_json({"healthy": not any(f.severity == "serious" for f in findings), "findings": findings})
    else:
        show(_table(findings))
    return ExitCode.TROUBLE if any(finding.severity == "serious" for finding in findings) else ExitCode.DONE


def _table(findings: list[Finding]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        text = " ".join(part for part in (finding.what, finding.consequence, finding.remedy) if part)
        table.add_row(
            Text(str(finding.severity), style=_STYLES[finding.severity]), finding.subject, Text(one_line(text))
        )
    return table


def check(as_json: JsonFlag = False) -> int:
    """Say how the ledger's schema fits this version; exit code 5 says that it does not.

    \b
    jobledger db check
    jobledger db check --history-url postgresql+psycopg://jobs@db.example/jobs --json
    """
    from ...history import schema_version

    url = current_settings().ledger_url
    state = schema_version.check(url)
    remedies = {
        "empty": "there is no ledger yet; the first use makes one",
        "current": "it fits this version",
        "older": "stop what writes to it, and run: jobledger db upgrade",
        "newer": "a newer Jobledger wrote it; install that version here",
        "unstamped": "it has tables of these names without a version; see: jobledger db stamp --help",
    }
    if as_json:
        print_json({"ledger": hide_password(url), "schema": state, "fits": state in ("empty", "current")})
    else:
        say(f"{hide_password(url)}: {state}; {remedies[state]}.")
    return ExitCode.DONE if state in ("empty", "current") else ExitCode.UNAVAILABLE


def upgrade(as_json: JsonFlag = False) -> None:
    """Bring the ledger to this version's schema, in one transaction; an empty database gets it.

    \b
    jobledger db upgrade
    """
    from ...history import schema_version

    url = current_settings().ledger_url
    before = schema_version.upgrade(url)
    if as_json:
        print_json({"ledger": hide_password(url), "before": before, "schema": "current"})
    else:
        say(f"{hide_password(url)}: {before} before, current now.")


def stamp(
    revision: Annotated[
        str | None, typer.Argument(metavar="[REVISION]", help="The newest unless named.", show_default=False)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Declare which schema the ledger has: only for tables that were restored without their version.

    \b
    jobledger db stamp
    jobledger db stamp 0001
    """
    from ...history import schema_version

    url = current_settings().ledger_url
    wanted = revision or schema_version.REVISIONS[-1]
    if wanted not in schema_version.REVISIONS:
        raise typer.BadParameter(f"{wanted!r} is no schema version; known: {', '.join(schema_version.REVISIONS)}")
    schema_version.stamp(url, wanted)
    if as_json:
        print_json({"ledger": hide_password(url), "revision": wanted})
    else:
        say(f"{hide_password(url)}: stamped as {wanted}.")


def key(as_json: JsonFlag = False) -> None:
    """Print a fresh key that protects job snapshots, for JOBLEDGER_SNAPSHOT_KEY.

    Several keys, separated by commas, are all tried; the first one protects what is new.

    \b
    export JOBLEDGER_SNAPSHOT_KEY=$(jobledger token key)
    """
    from ...history.snapshot import new_key

    fresh = new_key()
    if as_json:
        print_json({"snapshot_key": fresh})
    else:
        say(fresh)


db.command("check", help=help_of(check))(with_settings(check))
db.command("upgrade", help=help_of(upgrade))(with_settings(upgrade))
db.command("stamp", help=help_of(stamp))(with_settings(stamp))
token.command("key", help=help_of(key))(key)
