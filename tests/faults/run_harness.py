"""``python tests/faults/run_harness.py --ledger sqlite|postgresql --jobs 2000 --seed N``."""

from __future__ import annotations

import runpy

runpy.run_module("harness", run_name="__main__")
