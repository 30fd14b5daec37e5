"""Takes the records that Python's logging makes while a job runs into the job's log."""

from __future__ import annotations

import logging
from typing import Final

from billiard.exceptions import SoftTimeLimitExceeded

from ..settings import Settings
from .job_context import running_job

#: The logger above all of Celery's task loggers, those of ``get_task_logger``.
TASK_LOGGER: Final = "celery.task"
#: Programs that speak of the job from outside; what the job prints comes by ``celery.redirected``.
_NOT_THE_JOBS: Final = frozenset({"jobledger", "celery", "kombu", "amqp", "billiard", "multiprocessing"})
_THE_JOBS: Final = (TASK_LOGGER, "celery.redirected")
_TAKEN: Final = "_in_job_log"


class JobLogHandler(logging.Handler):
    """Adds a job's records to its log, beside whatever other handlers do with them. Prints nothing.

    A record from outside a job is not taken, nor one of Jobledger's or Celery's own, nor one that another logger has
    passed on already.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.job_log_level)
        self.setFormatter(logging.Formatter("%(message)s"))
        every = settings.job_log == "all"
        names = () if settings.job_log == "off" else (TASK_LOGGER, None) if every else (TASK_LOGGER,)
        self._loggers = [logging.getLogger(name) for name in names]

    def attach(self) -> None:
        """Attach to the loggers, where it is not yet.

        Only once a job starts: Celery gives a logger that has a handler no console any more, and a configuration that
        somebody loads later takes handlers away.
        """
        for logger in self._loggers:
            if self not in logger.handlers:
                logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record into the log of the job that this thread runs."""
        job = running_job()
        if job is None or hasattr(record, _TAKEN) or not _is_of_job(record.name):
            return
        setattr(record, _TAKEN, True)
        job.log(self._text_of(record), record.levelname, at=record.created)

    def _text_of(self, record: logging.LogRecord) -> str:
        try:
            # Formatting as a handler does it costs twice as much, and only an error needs it.
            return self.format(record) if record.exc_info or record.stack_info else record.getMessage()
        except SoftTimeLimitExceeded:
            # Not the record's: a signal's handler raised it here, and it is meant for the job.
            raise
        except Exception:  # noqa: BLE001 - an argument's own code may raise anything
            return str(record.msg) if isinstance(record.msg, str) else "(a record that cannot be formatted)"


def _is_of_job(name: str) -> bool:
    return name.startswith(_THE_JOBS) or name.split(".", 1)[0] not in _NOT_THE_JOBS
