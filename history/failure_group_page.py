"""The groups of failures as a ledger lists them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from .job_cursor import cursor_of


class FailureGroupSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs that are FAILED by the same failure; see ``failure_group.FailureGroup`` for what makes it the same."""

    fingerprint: str
    error_type: str
    pattern: str
    frame: str
    #: Jobs that the ledger holds.
    count: int
    first_seen_at: datetime
    last_seen_at: datetime
    #: The one of the jobs that failed last; the newest one, if that has been corrected or removed.
    example_job_id: str


class FailureGroupPage(msgspec.Struct, frozen=True, kw_only=True):
    """Groups, the one that failed last first, and where to go on; ``next_cursor`` is ``None`` on the last page."""

    groups: tuple[FailureGroupSummary, ...]
    next_cursor: str | None = None


def page_of_groups(groups: Sequence[FailureGroupSummary], limit: int) -> FailureGroupPage:
    """Return the first groups as a page, which has a next one if there are more."""
    shown = tuple(groups[:limit])
    more = len(groups) > limit
    return FailureGroupPage(
        groups=shown, next_cursor=cursor_of(shown[-1].last_seen_at, shown[-1].fingerprint) if more else None
    )
