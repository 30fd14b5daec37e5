"""The program ``jobledger``: its commands, and how each of its ends looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from ...errors import JobledgerError
from . import acting, counting, exporting, journal, pruning, reading, running, upkeep
from .exit_codes import ExitCode, code_of
from .flags import with_settings
from .help import help_of
from .output import note

_CONTEXT: Final = {"help_option_names": ["-h", "--help"]}
_PROCESSES: Final = "Commands that run something"
_JOBS: Final = "Commands for jobs"
_UPKEEP: Final = "Commands that look after it"

program = typer.Typer(
    name="jobledger",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings=_CONTEXT,
)


_HELP: Final = """Jobledger keeps what Celery forgets: a job's arguments, its cancel, its crash, its order.

\b
Try it:             jobledger demo
Start working:      jobledger up
See what happens:   jobledger jobs

Settings come from jobledger.toml, then from the environment (JOBLEDGER_BROKER_URL, JOBLEDGER_HISTORY_URL, \
JOBLEDGER_APP, JOBLEDGER_DATA_DIR, ...), then from flags, which stand before or after a command's name."""


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("jobledger"))
        raise typer.Exit


@program.callback(
    help=_HELP,
    epilog="Exit codes: 0 done; 1 unexpected, or doctor found something serious; 2 wrong usage, setting or job; "
    "3 no such job; 4 not allowed in the job's status, actions disabled, or arguments not kept; "
    "5 broker or ledger unavailable; 130 ended by Ctrl-C.",
)
@with_settings
def _jobledger(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _add(panel: str, name: str, command: Any, *, settings: bool = True) -> None:
    register = program.command(name, help=help_of(command), rich_help_panel=panel, context_settings=_CONTEXT)
    register(with_settings(command) if settings else command)


_add(_PROCESSES, "demo", running.demo, settings=False)
_add(_PROCESSES, "up", running.up)
_add(_PROCESSES, "worker", running.worker)
_add(_PROCESSES, "control", running.control)
_add(_JOBS, "submit", acting.submit)
_add(_JOBS, "submit-pipeline", acting.submit_pipeline)
_add(_JOBS, "jobs", reading.jobs)
_add(_JOBS, "show", reading.show)
_add(_JOBS, "watch", reading.watch)
_add(_JOBS, "stats", counting.stats)
_add(_JOBS, "failures", counting.failures)
_add(_JOBS, "cancel", acting.cancel)
_add(_JOBS, "retry", acting.retry)
_add(_JOBS, "export", exporting.export)
_add(_UPKEEP, "doctor", upkeep.doctor)
_add(_UPKEEP, "prune", pruning.prune)
program.add_typer(journal.journal, name="journal", rich_help_panel=_UPKEEP)
program.add_typer(upkeep.db, name="db", rich_help_panel=_UPKEEP)
program.add_typer(upkeep.token, name="token", rich_help_panel=_UPKEEP)


#: The root of what Typer raises about wrong usage; it is not exported by name.
_UsageError: Final[type[Exception]] = typer.BadParameter.__mro__[1]


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; an error becomes one sentence on stderr."""
    try:
        return _code(program(args=list(arguments) or ["--help"], prog_name="jobledger", standalone_mode=False))
    except JobledgerError as error:
        note(f"jobledger: {error}")
        return code_of(error)
    except _UsageError as error:
        return _explain_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED


def _code(value: object) -> int:
    return value if isinstance(value, int) else ExitCode.DONE


def _explain_usage(error: Any) -> int:
    command = error.ctx.command_path if error.ctx else "jobledger"
    if message := error.format_message().replace("Value error, ", ""):
        note(f"{command}: {message.rstrip('.')}. See `{command} --help`.")
    return ExitCode.USAGE
