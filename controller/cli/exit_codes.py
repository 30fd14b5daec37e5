"""What a command's exit code means."""

from __future__ import annotations

from enum import IntEnum

from ...errors import (
    BrokerUnavailable,
    HistoryUnavailable,
    InvalidJob,
    JobActionNotAllowed,
    JobActionsDisabled,
    JobledgerError,
    JobNotFound,
    SettingsError,
    SnapshotUnavailable,
)


class ExitCode(IntEnum):
    """The exit codes of every command."""

    #: Done.
    DONE = 0
    #: Something unexpected; for ``doctor``: something serious was found.
    TROUBLE = 1
    #: Wrong usage, a wrong setting, or a job that was refused before anything was written or sent.
    USAGE = 2
    #: No such job.
    NOT_FOUND = 3
    #: Not possible in the job's status, actions are disabled, or the job's arguments were not kept.
    NOT_ALLOWED = 4
    #: The broker or the ledger does not answer, or the ledger's schema does not fit.
    UNAVAILABLE = 5
    #: Ended by Ctrl-C.
    INTERRUPTED = 130


def code_of(error: JobledgerError) -> ExitCode:
    """Return the exit code for an error."""
    match error:
        case SettingsError() | InvalidJob():
            return ExitCode.USAGE
        case JobNotFound():
            return ExitCode.NOT_FOUND
        case JobActionNotAllowed() | JobActionsDisabled() | SnapshotUnavailable():
            return ExitCode.NOT_ALLOWED
        case BrokerUnavailable() | HistoryUnavailable():
            return ExitCode.UNAVAILABLE
    return ExitCode.TROUBLE
