"""Errors survive the way out of a pool's process, and say what to do."""

from __future__ import annotations

import pickle

import pytest
from jobledger.errors import InvalidJob, JobActionNotAllowed, JobledgerError, JobNotFound, SnapshotUnavailable


@pytest.mark.parametrize(
    "error",
    [
        InvalidJob("args[0]", "is not JSON"),
        JobNotFound("x" * 500),
        JobActionNotAllowed("id", "retry", "RUNNING"),
        SnapshotUnavailable("id", "no key"),
    ],
)
def test_an_error_is_the_same_after_pickling(error: JobledgerError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_an_overlong_id_is_shown_short() -> None:
    assert len(str(JobNotFound("x" * 10_000))) < 200
