"""Ids that sort by the time they were made."""

from __future__ import annotations

import os
import time


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562): 48 bits of milliseconds, 12 bits of the millisecond's fraction, then random bits.

    Ids of one process ascend, unless its clock is set back.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = (rest << 12) // 1_000_000
    random = int.from_bytes(os.urandom(8), "big") >> 2
    value = (milliseconds & (2**48 - 1)) << 80 | 7 << 76 | fraction << 64 | 0b10 << 62 | random
    # uuid.UUID would write the same in three times the time.
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
