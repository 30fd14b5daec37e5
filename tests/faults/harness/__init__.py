"""Runs jobs with known outcomes under random faults, and compares the ledger with the truth that the jobs wrote."""
