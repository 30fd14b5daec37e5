"""The command line of the harness."""

from __future__ import annotations

import argparse
import signal
import sys

from .run import Scale, random_seed, run_harness

#: From how many jobs on a run is a long one: it takes its time, and its outages are long.
_LONG_FORM = 1_000


def main() -> int:
    """Run once; return 1 when a job is lost or wrong."""
    parser = argparse.ArgumentParser(prog="run_harness.py", description=__doc__)
    parser.add_argument("--ledger", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=None, help="the same seed makes the same jobs and faults")
    parser.add_argument("--keep", action="store_true", help="keep ledger, logs and truth, to look at")
    options = parser.parse_args()
    is_long = options.jobs >= _LONG_FORM
    scale = Scale(
        ledger=options.ledger,
        jobs=options.jobs,
        seed=random_seed() if options.seed is None else options.seed,
        seconds=options.jobs / (8 if is_long else 13),
        outage=20.0 if is_long else 4.0,
        patience=90.0 if is_long else 15.0,
        quiet=6.0 if is_long else 3.0,
        keep=options.keep,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _unwind)
    return 0 if run_harness(scale, lambda line: print(line, flush=True)) else 1


def _unwind(number: int, _: object) -> None:
    """An end from outside: servers are stopped, the disk is unmounted, and nothing disturbs that."""
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
