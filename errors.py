"""Every error that Jobledger raises: one root, few leaves, each a sentence that says what to do next."""

from __future__ import annotations

from typing import Any


class JobledgerError(Exception):
    """Root of all errors that Jobledger raises on purpose; they survive the way out of a pool's process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(error_type: type[JobledgerError], args: tuple[Any, ...], fields: dict[str, Any]) -> JobledgerError:
    error = error_type.__new__(error_type)
    error.args = args
    error.__dict__.update(fields)
    return error


class SettingsError(JobledgerError):
    """Raised when a setting is missing, malformed or contradicts another one; raised at start, before anything runs."""


class InvalidJob(JobledgerError):
    """Raised when a submission is refused before anything was written or sent.

    ``field`` names the offending part of the submission, for instance ``args[0].steps``.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class JobNotFound(JobledgerError):
    """Raised when no job has the id, also when the id is not an id at all."""

    def __init__(self, job_id: str) -> None:
        shown = job_id if len(job_id) <= 64 else job_id[:61] + "..."
        super().__init__(f"No job has the id {shown!r}; `jobledger jobs` lists the known ones.")
        self.job_id = job_id


class JobActionNotAllowed(JobledgerError):
    """Raised when the job's status forbids the action; ``status`` is the status that was found."""

    def __init__(self, job_id: str, action: str, status: str) -> None:
        super().__init__(f"Job {job_id} is {status}; {action} is not possible in this status.")
        self.job_id = job_id
        self.action = action
        self.status = status


class JobActionsDisabled(JobledgerError):
    """Raised for every action while the setting ``job_actions_enabled`` is false."""

    def __init__(self, action: str) -> None:
        super().__init__(
            f"Job actions are disabled here: {action} was refused. Set JOBLEDGER_JOB_ACTIONS_ENABLED=true."
        )
        self.action = action


class SnapshotUnavailable(JobledgerError):
    """Raised when a job cannot be retried because its exact arguments are not known; ``reason`` says why."""

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(f"Job {job_id} cannot be retried: {reason}.")
        self.job_id = job_id
        self.reason = reason


class BrokerUnavailable(JobledgerError):
    """Raised when the broker cannot be reached and the call needed it."""


class HistoryUnavailable(JobledgerError):
    """Raised when the ledger cannot be reached, is locked for too long, or has a schema that does not fit."""


class JobCancelled(JobledgerError):
    """Raised inside a job by ``current_job().raise_if_cancelled()`` after somebody cancelled it.

    Let it pass through: the job is then recorded as CANCELLED.
    """


class EventRefused(JobledgerError):
    """Raised when the ledger works but will not take an event for what the event contains; repeating is of no use."""


class RetentionBusy(JobledgerError):
    """Raised when old jobs cannot be removed now because another process is removing some."""

    def __init__(self) -> None:
        super().__init__("Another process removes old jobs from this ledger right now; try again when it is done.")


class ExportFailed(JobledgerError):
    """Raised when jobs cannot be written to a file; jobs that were to be removed after that are still there."""
