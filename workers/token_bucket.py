"""A rate with a burst: what bounds how much one run may say."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """Holds at most ``burst`` tokens, and gets ``rate`` new ones a second; full at first."""

    def __init__(self, burst: float, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._tokens = burst
        self._filled_at = clock()

    def is_empty(self) -> bool:
        """Whether there is no whole token now."""
        moment = self._clock()
        self._tokens = min(self._burst, self._tokens + (moment - self._filled_at) * self._rate)
        self._filled_at = moment
        return self._tokens < 1

    def take(self, count: int = 1) -> None:
        """Take tokens, also more than there are: the rest is owed, and nothing is to be had until it is paid back."""
        self._tokens -= count
