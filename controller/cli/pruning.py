"""The command that removes old jobs: prune."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import InvalidJob
from ...history.job import TERMINAL_STATUSES, JobStatus
from .acting import JsonFlag
from .connection import reading_service
from .output import local_time, note, print_json, say
from .period import beginning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...history.retention import Share

EndedStatusFlag = Annotated[
    list[JobStatus] | None,
    typer.Option("--status", case_sensitive=False, help="Only ended jobs of this status; repeatable."),
]


def prune(
    *,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="TIME", help="Jobs that ended before: 30d, 12h, a moment.")
    ] = None,
    keep: Annotated[
        int | None, typer.Option("--keep", metavar="N", min=0, help="All but the N that were submitted last.")
    ] = None,
    status: EndedStatusFlag = None,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="Add the jobs to this file of JSON lines first.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove ended jobs with everything about them: without flags, what the settings call too old or too many.

    Jobs that wait or run stay, so do those of which a retry does, and for a week those that were cancelled. It asks
    before it removes; where nobody can answer it needs --yes. With --export nothing goes that is not in the file.

    \b
    jobledger prune --dry-run
    jobledger prune --older-than 30d --export removed.jsonl
    jobledger prune --keep 10000 --status completed --yes
    """
    _require_ended(status or [])
    if status and older_than is None and keep is None:
        raise InvalidJob("--status", "says only which jobs; add --older-than or --keep")
    with reading_service(0.0) as service:
        policy = service.retention_policy(_age(older_than), keep, status or ())
        if dry_run or not yes:
            shares = service.removable_jobs(policy)
            if dry_run or not shares:
                _tell(shares, as_json)
                return
            _ask(shares)
        _tell_removed(service.prune(policy, export), as_json)


def _require_ended(statuses: list[JobStatus]) -> None:
    active = [status for status in statuses if status not in TERMINAL_STATUSES]
    if active:
        raise InvalidJob("--status", f"{active[0]} jobs are never removed; cancel them first")


def _age(older_than: str | None) -> timedelta | None:
    if older_than is None:
        return None
    present = datetime.now(UTC)
    age = present - beginning("--older-than", older_than, present)
    if age < timedelta(0):
        raise InvalidJob("--older-than", f"{older_than[:80]!r} is yet to come")
    return age


def _tell(shares: Mapping[JobStatus, Share], as_json: bool) -> None:
    if as_json:
        print_json(_summary(dict(sorted(shares.items())), dry_run=True))
    elif shares:
        say(_listed(shares))
    else:
        note("Nothing is too old or too many.")


def _summary(statuses: Mapping[JobStatus, Any], *, dry_run: bool) -> dict[str, Any]:
    return {"dry_run": dry_run, "jobs": sum(share.jobs for share in statuses.values()), "statuses": statuses}


def _listed(shares: Mapping[JobStatus, Share]) -> str:
    return "\n".join(
        f"{share.jobs:>10,} {status:<9}  submitted from {local_time(share.oldest)} to {local_time(share.newest)}"
        for status, share in sorted(shares.items())
    )


def _ask(shares: Mapping[JobStatus, Share]) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise typer.BadParameter("nobody can be asked here; add --yes to remove jobs, or --dry-run to look")
    note(_listed(shares))
    total = sum(share.jobs for share in shares.values())
    typer.confirm(f"Remove {total:,} jobs with everything about them, for good?", abort=True, err=True)


def _tell_removed(removed: Mapping[JobStatus, int], as_json: bool) -> None:
    if as_json:
        statuses = {status: {"jobs": count} for status, count in sorted(removed.items())}
        print_json({"dry_run": False, "jobs": sum(removed.values()), "statuses": statuses})
        return
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(removed.items()))
    note(f"Removed {sum(removed.values()):,} jobs{': ' + counts if counts else ''}.")
