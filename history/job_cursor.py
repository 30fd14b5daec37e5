"""Where a page of jobs ended: opaque to its reader, and valid also when that job is gone."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from .job import Moment

_LONGEST = 2_000
#: Like a job's id, or empty: the place before all jobs of the moment.
_Id = Annotated[str, msgspec.Meta(max_length=255, pattern=r"\A[^\x00]*\Z")]


class JobCursor(msgspec.Struct, frozen=True, array_like=True):
    """The place in the order "newest first, ties by id" right after one job."""

    created_at: Moment
    job_id: _Id

    def encode(self) -> str:
        """Return the text that stands for this place, safe in a URL."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).rstrip(b"=").decode()


_DECODER = msgspec.json.Decoder(JobCursor)


def decode_cursor(text: str) -> JobCursor:
    """Return the place that ``JobCursor.encode`` wrote down.

    Raises:
        ValueError: for any other text.
    """
    try:
        padded = text[:_LONGEST] + "=" * (-len(text) % 4)
        cursor = _DECODER.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
        return JobCursor(cursor.created_at.astimezone(UTC), cursor.job_id)
    except (ValueError, OverflowError, binascii.Error, msgspec.DecodeError):
        raise ValueError("This is not a cursor of this list; leave it out to start at the newest job.") from None


def cursor_of(created_at: datetime, job_id: str) -> str:
    """Return the text of the place right after the job."""
    return JobCursor(created_at, job_id).encode()
