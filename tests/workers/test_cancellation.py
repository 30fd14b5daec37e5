"""The token by itself."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from jobledger import CancelToken, JobCancelled


def test_a_token_is_set_once_and_stays_set() -> None:
    token = CancelToken()
    token.raise_if_cancelled()
    before = token.cancelled

    token.cancel()

    assert (before, token.cancelled) == (False, True)
    with pytest.raises(JobCancelled):
        token.raise_if_cancelled()


def test_a_token_looks_at_its_probe() -> None:
    flags = [False]
    token = CancelToken(lambda: flags[0])
    assert not token.cancelled

    flags[0] = True

    assert token.cancelled


def test_waiting_ends_when_the_token_is_set() -> None:
    token = CancelToken()
    threading.Timer(0.05, token.cancel).start()
    began = time.monotonic()

    assert token.wait(30) is True
    assert time.monotonic() - began < 10
    assert CancelToken().wait(0.01) is False


def test_callbacks_are_called_once_from_another_thread_and_their_errors_hurt_nobody(eventually: Any) -> None:
    token = CancelToken()
    called: list[str] = []

    def fail() -> None:
        called.append("fails")
        raise RuntimeError("it fails")

    token.on_cancel(fail)
    token.on_cancel(lambda: called.append(threading.current_thread().name))
    token.cancel()

    eventually(lambda: len(called) == 2)
    token.on_cancel(lambda: called.append("late"))
    eventually(lambda: len(called) == 3)
    assert called == ["fails", "jobledger-cancel-watch", "late"]
    token.close()


def test_a_callback_that_was_taken_back_is_not_called(eventually: Any) -> None:
    token = CancelToken()
    called: list[str] = []
    take_back = token.on_cancel(lambda: called.append("first"))
    token.on_cancel(lambda: called.append("second"))

    take_back()
    take_back()
    token.cancel()

    eventually(lambda: called)
    assert called == ["second"]
    token.close()


def test_a_closed_token_calls_nobody_and_its_watcher_ends(eventually: Any) -> None:
    token = CancelToken()
    token.on_cancel(lambda: pytest.fail("called after the end"))

    token.close()

    eventually(lambda: "jobledger-cancel-watch" not in [thread.name for thread in threading.enumerate()])
