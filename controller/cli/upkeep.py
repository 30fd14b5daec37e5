"""The commands that look after an installation: doctor, db, token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from ...errors import JobledgerError
from ...history.redaction import hide_password
from .acting import JsonFlag
from .exit_codes import ExitCode, code_of
from .flags import current_settings, with_settings
from .help import help_of
from .output import one_line, print_json, say, show

if TYPE_CHECKING:
    from rich.table import Table

    from ...history.schema_version import SchemaVersion, Upgrade
    from ..finding import Finding

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

    try:
        findings = examine(current_settings())
    except JobledgerError as error:
        if not as_json:
            raise
        print_json({"healthy": False, "error": str(error), "findings": []})
        return code_of(error)
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
    """Say which schema the ledger has, and what to do when it does not fit; exit code 5 says that it is not current.

    \b
    jobledger db check
    jobledger db check --history-url postgresql+psycopg://jobs@db.example/jobs --json
    """
    from ...history import schema_version

    url = current_settings().ledger_url
    found = schema_version.check(url)
    if as_json:
        print_json(
            {
                "ledger": hide_password(url),
                "schema": found.state,
                "revision": found.revision,
                "newest": schema_version.REVISIONS[-1],
            }
        )
    else:
        say(f"{hide_password(url)}: {found.state}{_in_brackets(found.revision)}; {_remedy(found, url)}.")
    return ExitCode.DONE if found.state is schema_version.SchemaState.CURRENT else ExitCode.UNAVAILABLE


def _remedy(found: SchemaVersion, url: str) -> str:
    from ...history.schema_version import REVISIONS, SchemaState, upgrade_advice

    match found.state:
        case SchemaState.EMPTY:
            return "there is no ledger yet; `jobledger db upgrade` makes one, and so does the first use"
        case SchemaState.CURRENT:
            return "it fits this version"
        case SchemaState.OLDER:
            return f"this version needs {REVISIONS[-1]}: {upgrade_advice(url)}"
        case SchemaState.NEWER:
            return (
                f"a newer Jobledger wrote it, and this one knows none after {REVISIONS[-1]}; install that version here"
            )
        case SchemaState.UNSTAMPED:
            return "it has tables of these names without a version; see `jobledger db stamp --help`"


def _in_brackets(revision: str | None) -> str:
    return f" ({revision})" if revision else ""


def upgrade(as_json: JsonFlag = False) -> None:
    """Bring the ledger to this version's schema, in one transaction; an empty database gets it.

    Stop what writes to the ledger first. After an error everything is as it was. Of two that run at once, one waits.

    \b
    jobledger db upgrade
    jobledger db upgrade --history-url sqlite:////srv/jobs/ledger.db
    """
    from ...history import schema_version

    url = current_settings().ledger_url
    done = schema_version.upgrade(url)
    if as_json:
        print_json(
            {
                "ledger": hide_password(url),
                "before": done.before.state,
                "from": done.before.revision,
                "to": schema_version.REVISIONS[-1],
                "applied": done.applied,
            }
        )
    else:
        say(f"{hide_password(url)}: {_what_was_done(done)}.")


def _what_was_done(done: Upgrade) -> str:
    if not done.applied:
        return f"current before ({done.before.revision}), nothing to do"
    if done.before.revision is None:
        return f"empty before, made with schema {done.applied[-1]}"
    return f"upgraded from {done.before.revision} to {done.applied[-1]}"


def stamp(
    revision: Annotated[
        str | None,
        typer.Argument(metavar="[REVISION]", help="The one that you expect; refused if it is not.", show_default=False),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write down which schema the ledger has, as recognised by its tables: after a restore without the version.

    Tables that are not exactly those of one version are refused, with the difference.

    \b
    jobledger db stamp
    jobledger db stamp 0001
    """
    from ...history import schema_stamp, schema_version

    url = current_settings().ledger_url
    if revision is not None and revision not in schema_version.REVISIONS:
        raise typer.BadParameter(f"{revision!r} is no schema version; known: {', '.join(schema_version.REVISIONS)}")
    recognised = schema_stamp.stamp(url, revision)
    if as_json:
        print_json({"ledger": hide_password(url), "revision": recognised})
    else:
        say(f"{hide_password(url)}: stamped as {recognised}.")


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
