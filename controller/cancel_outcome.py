"""Where a cancel stands."""

from __future__ import annotations

import msgspec

from ..history.job import JobStatus


class CancelOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Where a cancel stands: the job's status, and what it waits for while it is not proven."""

    job_id: str
    status: JobStatus
    #: ``None`` when the job has ended.
    waiting_for: str | None = None

    @property
    def is_proven(self) -> bool:
        """Whether the job has ended."""
        return self.status.is_terminal
