"""What can go wrong while a pipeline runs."""

from __future__ import annotations

from ...errors import JobledgerError


class PipelineError(JobledgerError):
    """Raised when a pipeline cannot go on; the message names the picture or the stage and says what to do."""


class PipelineProducedNothing(PipelineError):
    """Raised when every stage ended without an error, and yet no file came out."""


class PictureRefused(PipelineError):
    """Raised for a picture that is missing, unreadable, too large, or outside the allowed directories."""
