"""Writes what happens to jobs in this process into its journal."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from ..history.agent_link import AgentLink
from ..history.event import EventKind, JobEvent, now
from ..history.ids import new_id
from ..history.job import Evidence, FailureKind, JobEnd, JobStatus, Progress
from ..history.journal import Journal, home_of
from ..history.node import Node
from ..history.redaction import redact, redact_text
from ..settings import Settings
from .job_context import JobContext
from .job_log import LogLine
from .runs import RunKey

logger = logging.getLogger("jobledger.recording")

_ERROR_LENGTH: Final = 2_000
_TRACEBACK_LENGTH: Final = 16_000
_RESULT_LENGTH: Final = 2_048
_PROGRESS_LENGTH: Final = 200
_RESULT_TYPES: Final = (str, int, float, bool, dict, list)


class JobRecorder:
    """Records events for one process; replaceable in tests.

    Its methods cost microseconds, open no connection and never raise. The first event of a process starts the link
    to the agent; a pool child leaves that to its node.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.boot_id = new_id()
        self.node: Node | None = None
        self._in_pool = False
        self._link: AgentLink | None = None
        self._lock = threading.Lock()
        self._journal = self._new_journal()
        os.register_at_fork(after_in_child=self._enter_child)

    @property
    def journal_dir(self) -> Path:
        """Where this process writes."""
        return self.settings.journal_dir

    @property
    def home(self) -> str:
        """The id of the journal directory; empty while that cannot be written."""
        try:
            return home_of(self.journal_dir)
        except OSError:
            return ""

    @property
    def dropped(self) -> int:
        """Events that this process could not write."""
        return self._journal.dropped

    def start_node(self, node: Node) -> None:
        """Make this process a node: open its journal, whose lock proves its life, and attach to the agent."""
        self.node = node
        try:
            self._journal.open()
        except OSError as error:
            logger.error("The journal cannot be written in %s: %s", self.journal_dir, error)
        self._start_link()

    def join_boot(self, boot_id: str) -> None:
        """Make this process part of a node's boot: what a spawned pool child does before its first event."""
        if boot_id != self.boot_id:
            self.boot_id = boot_id
            self._in_pool = True
            self._journal.close()
            self._journal = self._new_journal()

    def record(self, event: JobEvent) -> bool:
        """Write one event to the journal; return whether it is there."""
        is_written = self._journal.append(event)
        if self._link is None and not self._in_pool:
            self._start_link()
        return is_written

    def note(self, kind: EventKind, key: RunKey, source: str, *, at: datetime | None = None, **fields: Any) -> bool:
        """Record what this process sees of one attempt, now unless another moment is given; return as ``record``."""
        return self.record(
            JobEvent(
                kind=kind,
                job_id=key.job_id,
                at=at or now(),
                source=source,
                requeue=key.requeue,
                retries=key.retries,
                boot_id=self.boot_id,
                pid=os.getpid(),
                **fields,
            )
        )

    def note_job(self, kind: EventKind, job: JobContext, source: str, **fields: Any) -> None:
        """Record what this process sees now of a job that it runs."""
        self.note(kind, job.key, source, run_id=job.run_id, worker_id=job.node, **fields)

    def progress(self, job: JobContext, progress: Progress) -> None:
        """Record how far a job is."""
        text = printable(redact_text(progress.text[:_ERROR_LENGTH]))[:_PROGRESS_LENGTH]
        shown = msgspec.structs.replace(progress, text=text)
        self.note_job(EventKind.PROGRESS, job, "progress", progress=shown)

    def log(self, job: JobContext, line: LogLine) -> None:
        """Record a line of a job's log."""
        self.note_job(EventKind.LOG, job, "log", at=line.at, level=line.level, text=printable(line.text))

    def goodbye(self) -> bool:
        """Wait for the receipt of everything written, 5 s at most; return whether it came."""
        link, self._link = self._link, None
        self._journal.close()
        self._in_pool = True
        return link.goodbye() if link is not None else True

    def _new_journal(self) -> Journal:
        return Journal(
            self.journal_dir,
            self.boot_id,
            segment=self.settings.journal_segment,
            fsync=self.settings.journal_fsync,
        )

    def _start_link(self) -> None:
        with self._lock:
            if self._link is not None:
                return
            self._link = AgentLink(self.settings, self.boot_id, self.node)
        self._link.start()
        if self.node is None:
            atexit.register(self.goodbye)

    def _enter_child(self) -> None:
        """A forked pool child writes for its node; any other forked child is a publisher of its own."""
        self._lock = threading.Lock()
        self._link = None
        if self.node is not None or self._in_pool:
            self._in_pool = True
            return
        self.boot_id = new_id()
        self._journal = self._new_journal()


def own_end(status: JobStatus, job: JobContext, **fields: Any) -> JobEnd:
    """Return the end that a job's own function comes to now."""
    return JobEnd(
        status=status,
        at=now(),
        requeue=job.requeue,
        retries=job.retries,
        evidence=Evidence.OWN,
        run_id=job.run_id,
        worker_id=job.node,
        runtime=round(time.monotonic() - job.started, 6),
        **fields,
    )


def error_fields(error: BaseException | None, kind: FailureKind | None, stack: str | None = None) -> dict[str, Any]:
    """Return the fields of an end that tell an error: redacted, and cut to what a person reads."""
    if error is None:
        return {"failure_kind": kind}
    text = stack or "".join(traceback.format_exception(error))
    return {
        "failure_kind": kind,
        "error_type": type(error).__qualname__,
        "error_message": printable(redact_text(_message_of(error)))[:_ERROR_LENGTH],
        "traceback": printable(redact_text(text[-_TRACEBACK_LENGTH:])),
    }


def _message_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception of the user's may not be printable
        text = ""
    return f"{type(error).__qualname__}: {text}" if text else type(error).__qualname__


def printable(text: str) -> str:
    """Return text that UTF-8 and every database can hold."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")


def result_reference(value: object) -> str | None:
    """Return a small redacted JSON text of a result; for a large or foreign one only its type."""
    if value is None:
        return None
    kind = type(value).__name__
    if not isinstance(value, _RESULT_TYPES) or (isinstance(value, (str, dict, list)) and len(value) > _RESULT_LENGTH):
        return msgspec.json.encode({"type": kind}).decode()
    try:
        text = printable(msgspec.json.encode(redact(value)).decode())
    except (TypeError, ValueError, msgspec.EncodeError, RecursionError):
        return msgspec.json.encode({"type": kind}).decode()
    return text if len(text) <= _RESULT_LENGTH else msgspec.json.encode({"type": kind, "size": len(text)}).decode()
