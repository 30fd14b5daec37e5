"""The commands that look after the journals: status, replay, show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from .acting import JsonFlag
from .connection import reading_service
from .exit_codes import ExitCode
from .flags import current_settings, with_settings
from .help import help_of
from .output import age, local_time, note, one_line, print_json, say, show

if TYPE_CHECKING:
    from rich.table import Table

    from ...history.job_history_store import RecordingGap
    from ..poison_view import ReplayedView
    from ..recording_status import JournalBacklog, RecordingStatus

LineId = Annotated[
    str, typer.Argument(metavar="ID", help="JOURNAL:BYTE, as `journal replay --dry-run` says it.", show_default=False)
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Say what would become of each line; change nothing.")]

_AGENT: Final = {
    "records": "runs (process {pid}), for {clients} clients; nodes: {nodes}",
    "hangs": "holds its place and does not answer; its clients end it after half a minute, or: kill -9 its process",
    "away": "does not run; the first event or worker starts it",
}

journal = typer.Typer(no_args_is_help=True, help="Look after the journals: status, replay, show.")


def status(as_json: JsonFlag = False) -> int:
    """Say what waits in the journals of this host, how its agent is, and what could not be recorded.

    Also while the ledger is away. Exit code 1 says that events wait and cannot be recorded now.

    \b
    jobledger journal status
    jobledger journal status --data-dir /srv/jobs --json
    """
    from ..recording_status import recording_status

    found = recording_status(current_settings())
    if as_json:
        print_json(found)
    else:
        _tell(found)
    return ExitCode.TROUBLE if found.trouble or found.agent == "hangs" else ExitCode.DONE


def _tell(found: RecordingStatus) -> None:
    nodes = ", ".join(found.nodes) or "none"
    text = _AGENT[found.agent].format(pid=found.agent_pid, clients=found.clients, nodes=nodes)
    say(f"Agent:     {one_line(text)}")
    say(f"Trouble:   {one_line(found.trouble) or 'none'}")
    if found.ledger_problem:
        say(f"Ledger:    {one_line(found.ledger_problem)}")
    say(f"Journals:  {_sum(found.journals)} in {found.directory}")
    if found.journals:
        show(_journal_table(found.journals))
    if found.gaps is None:
        say("Gaps:      cannot be said without the ledger")
    else:
        _tell_gaps(found.gaps)


def _sum(journals: tuple[JournalBacklog, ...]) -> str:
    waiting = [journal.waiting for journal in journals]
    known = [size for size in waiting if size is not None]
    backlog = f"{sum(known):,} bytes wait" if len(known) == len(waiting) else "what waits cannot be said"
    return f"{len(journals):,} files, {backlog}"


def _tell_gaps(gaps: tuple[RecordingGap, ...]) -> None:
    dropped, poisoned = sum(gap.dropped for gap in gaps), sum(gap.poisoned for gap in gaps)
    say(f"Gaps:      {dropped:,} events were not written (full disk), {poisoned:,} lines could not be read")
    for gap in gaps:
        say(f"  {gap.journal}: {gap.dropped:,} not written, {gap.poisoned:,} not read; last {age(gap.updated_at)} ago")
    if poisoned:
        note("The lines and their reasons: jobledger journal replay --dry-run")


def _journal_table(journals: tuple[JournalBacklog, ...]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    for title in ("BOOT", "JOURNAL", "SIZE", "WAITING"):
        table.add_column(title, no_wrap=True, justify="right" if title in ("SIZE", "WAITING") else "left")
    for found in journals:
        file = found.journal.removeprefix(f"{found.boot_id}.")
        waiting = "?" if found.waiting is None else f"{found.waiting:,}"
        table.add_row(found.boot_id, file, f"{found.size:,}", waiting)
    return table


def replay(dry_run: DryRunFlag = False, as_json: JsonFlag = False) -> int:
    """Try every journal line again that could not be read: a newer version may understand it.

    Each line is recorded exactly once, and then removed; what still cannot be read stays, with its new reason. Exit
    code 1 says that some do.

    \b
    jobledger journal replay --dry-run
    jobledger journal replay
    """
    recorded = stayed = 0
    with reading_service(wait=0.0) as service:
        for line in service.replay_poison(dry_run=dry_run):
            recorded, stayed = recorded + line.recorded, stayed + (not line.recorded)
            _tell_replayed(line, dry_run, as_json)
    if not as_json:
        word = "would be recorded" if dry_run else "were recorded"
        say(f"{recorded:,} lines {word}, {stayed:,} still cannot be read.")
    return ExitCode.TROUBLE if stayed else ExitCode.DONE


def _tell_replayed(line: ReplayedView, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json(line, indent=0)
    elif line.recorded:
        say(f"{line.id}: {'can be recorded' if dry_run else 'recorded'}")
    else:
        say(f"{line.id}: {one_line(line.reason)}")


def show_line(line_id: LineId, as_json: JsonFlag = False) -> int:
    """Print a journal line that could not be read, without the secrets in it.

    \b
    jobledger journal show 019a8b3e-6c1f-7d20-9a31-5f0e2b7c4d11.019a8b3e-6c20-7000-8000-000000000000:1234
    """
    with reading_service(wait=0.0) as service:
        try:
            line = service.get_poison_line(line_id)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    if line is None:
        note(f"jobledger: No line {line_id} was set aside; `jobledger journal replay --dry-run` lists those that are.")
        return ExitCode.NOT_FOUND
    if as_json:
        print_json(line)
        return ExitCode.DONE
    say(f"Journal {line.journal}, byte {line.offset:,}, {line.size:,} bytes; set aside {local_time(line.recorded_at)}")
    say(f"Reason: {one_line(line.reason)}")
    say(line.text.rstrip("\n"))
    return ExitCode.DONE


journal.command("status", help=help_of(status))(with_settings(status))
journal.command("replay", help=help_of(replay))(with_settings(replay))
journal.command("show", help=help_of(show_line))(with_settings(show_line))
