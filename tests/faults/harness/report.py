"""What a run came to, as text for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from jobledger.history.job import JobStatus

from .comparison import Finding, Judgement
from .truth import JobTruth

_SHOWN = 40


def outcome_table(judgements: list[Judgement]) -> list[str]:
    """Return how many jobs of each kind ended in each status."""
    columns = [*JobStatus, None]
    rows: dict[str, Counter[JobStatus | None]] = defaultdict(Counter)
    for judgement in judgements:
        rows[judgement.job.kind][judgement.status] += 1
        rows["all"][judgement.status] += 1
    names = ["no row" if column is None else column.value for column in columns]
    lines = ["".join([f"{'kind of job':<17}", *(f"{name:>11}" for name in names)])]
    for kind in sorted(rows, key=lambda name: (name == "all", name)):
        lines.append("".join([f"{kind:<17}", *(f"{rows[kind][column] or '-':>11}" for column in columns)]))
    return lines


def finding_table(judgements: list[Judgement]) -> list[str]:
    """Return how many jobs came to each finding."""
    counts = Counter(judgement.finding for judgement in judgements)
    return [f"{finding.value:<28}{counts[finding]:>6}" for finding in Finding]


def reasons(judgements: list[Judgement], findings: Iterable[Finding]) -> list[str]:
    """Return each reason of these findings with its number and an example."""
    wanted = set(findings)
    groups: dict[tuple[Finding, str], list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        if judgement.finding in wanted:
            groups[judgement.finding, _without_ids(judgement.reason)].append(judgement)
    return [
        f"{finding.value}: {len(group)} x {reason} ({', '.join(each.job.job_id for each in group[:4])})"
        for (finding, reason), group in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]


def defects(judgements: list[Judgement]) -> list[str]:
    """Return the jobs that are lost or wrong, one line each."""
    found = [judgement for judgement in judgements if judgement.finding.is_defect]
    lines = [f"{j.finding.upper()} {j.job.job_id} ({j.job.kind}, {j.job.sender}) {j.status}: {j.reason}" for j in found]
    return lines[:_SHOWN] + ([f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])


def duplicates(truths: dict[str, JobTruth]) -> list[str]:
    """Return the jobs of which one attempt ran more than once."""
    return [job_id for job_id, truth in truths.items() if truth.has_double_run]


def _without_ids(reason: str) -> str:
    return " ".join("..." if any(letter.isdigit() for letter in word) else word for word in reason.split())
