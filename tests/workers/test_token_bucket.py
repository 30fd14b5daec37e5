"""The rate that bounds what one run may say."""

from __future__ import annotations

from jobledger.workers.token_bucket import TokenBucket


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_full_bucket_gives_its_burst_and_then_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(3, 2, clock)

    assert _takes(bucket, 10) == 3
    clock.seconds = 1
    assert _takes(bucket, 10) == 2
    clock.seconds = 100
    assert _takes(bucket, 10) == 3


def test_what_is_owed_is_paid_back_first() -> None:
    clock = Clock()
    bucket = TokenBucket(1, 1, clock)
    bucket.take(6)

    clock.seconds = 5
    assert bucket.is_empty()
    clock.seconds = 6
    assert not bucket.is_empty()


def _takes(bucket: TokenBucket, tries: int) -> int:
    taken = 0
    for _ in range(tries):
        if not bucket.is_empty():
            bucket.take()
            taken += 1
    return taken
