"""One run from its seed to its verdict."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from jobledger.history.job_history_store import JobHistoryStore
from jobledger.history.sql_store import SqlJobHistoryStore

from . import report
from .comparison import Comparison, Finding, Judgement
from .faults import Chaos, make_schedule
from .fleet import Fleet
from .plan import PlannedJob, make_plan, write_plan
from .servers import wait_until
from .site import Site
from .truth import JobTruth, read_truth

_STEP = 0.05
_READY_TIMEOUT = 60.0
#: Seconds after which no more change is waited for.
_PATIENCE = 180.0


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much a run does."""

    ledger: str
    jobs: int
    seed: int
    #: Seconds over which the jobs are sent.
    seconds: float
    #: Seconds that the ledger is away.
    outage: float
    #: Seconds that a cancel waits for its job to get where it is to be cancelled.
    patience: float
    #: Seconds without any change after which nothing more is expected.
    quiet: float
    #: Keep the run's directory, to look at.
    keep: bool = False


def run_harness(scale: Scale, say: Callable[[str], None]) -> bool:
    """Run the jobs under fault, say what was found, and return whether the ledger kept its promise."""
    began = time.monotonic()
    say(f"seed {scale.seed}, {scale.jobs} jobs over {scale.seconds:g} s on {scale.ledger}")
    with _directory(scale.keep, say) as directory:
        site = Site(directory, scale.ledger)
        try:
            kept = _run(scale, site, say)
        finally:
            site.close()
    say(f"{time.monotonic() - began:.0f} s in all")
    return kept


@contextmanager
def _directory(keep: bool, say: Callable[[str], None]) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="jl-faults-", dir="/tmp"))
    # The server of PostgreSQL runs as somebody else.
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        if keep:
            say(f"everything is kept in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _run(scale: Scale, site: Site, say: Callable[[str], None]) -> bool:
    plan = make_plan(scale.seed, scale.jobs, scale.seconds)
    write_plan(site.directory / "plan.json", plan)
    site.start_servers()
    store = SqlJobHistoryStore.open(site.ledger.url)
    try:
        fleet = Fleet(site, scale.seed)
        wait_until(lambda: _all_are_known(store, fleet), _READY_TIMEOUT, "the workers do not start")
        chaos = _let_it_happen(scale, site, fleet)
        _wait_until_quiet(scale, site, store, plan, fleet)
        _stop_all(scale, store, plan, fleet)
        return _compare(site, store, plan, chaos, fleet, say)
    finally:
        store.close()


def _all_are_known(store: JobHistoryStore, fleet: Fleet) -> bool:
    for worker in fleet.workers:
        if worker.process.poll() is not None:
            raise RuntimeError(f"{worker.name} does not start:\n{worker.log.read_text()[-2_000:]}")
    return len(store.list_nodes()) == len(fleet.workers)


def _let_it_happen(scale: Scale, site: Site, fleet: Fleet) -> Chaos:
    schedule = make_schedule(scale.seed, scale.jobs, scale.seconds)
    senders = [
        site.start(home, f"{role}.log", "harness.senders", role, str(site.directory / "plan.json"), str(scale.patience))
        for home, role in ((site.homes[1], "controller"), (site.homes[0], "plain"), (site.homes[1], "canceller"))
    ]
    chaos = Chaos(site, fleet, schedule, scale.seed, scale.outage)
    while not chaos.is_over or any(sender.poll() is None for sender in senders):
        chaos.step()
        fleet.step()
        time.sleep(_STEP)
    failed = [sender.args for sender in senders if sender.returncode]
    if failed:
        raise RuntimeError(f"A sender failed, see its log: {failed}")
    return chaos


def _wait_until_quiet(scale: Scale, site: Site, store: JobHistoryStore, plan: list[PlannedJob], fleet: Fleet) -> None:
    def is_busy() -> bool:
        return site.broker.waiting() > 0 or site.backlog() > 0

    _wait_until_unchanged(lambda: (_open_jobs(store, plan), is_busy() and time.monotonic()), scale.quiet, fleet.step)


def _stop_all(scale: Scale, store: JobHistoryStore, plan: list[PlannedJob], fleet: Fleet) -> None:
    """Without workers everything that can be concluded is: the leader knows that each of them has ended."""
    fleet.stop_workers()
    _wait_until_unchanged(lambda: (_open_jobs(store, plan), len(store.list_nodes())), scale.quiet, lambda: None)
    fleet.stop_leader()


def _wait_until_unchanged(look: Callable[[], object], seconds: float, meanwhile: Callable[[], None]) -> None:
    deadline = time.monotonic() + _PATIENCE
    seen, since = look(), time.monotonic()
    while time.monotonic() - since < seconds and time.monotonic() < deadline:
        meanwhile()
        time.sleep(0.5)
        now = look()
        if now != seen:
            seen, since = now, time.monotonic()


def _open_jobs(store: JobHistoryStore, plan: list[PlannedJob]) -> frozenset[str]:
    ids = [job.job_id for job in plan]
    entries = {}
    for first in range(0, len(ids), 500):
        entries.update(store.get_jobs(ids[first : first + 500]))
    return frozenset(job_id for job_id in ids if job_id not in entries or not entries[job_id].status.is_terminal)


def _compare(
    site: Site, store: JobHistoryStore, plan: list[PlannedJob], chaos: Chaos, fleet: Fleet, say: Callable[[str], None]
) -> bool:
    truths = read_truth(site.truth_dir)
    comparison = Comparison(store, plan, truths, chaos.damage, *site.broker.known_jobs())
    judgements = comparison.judge_all()
    strangers = comparison.strangers()
    _tell_outcomes(judgements, say)
    _tell_faults(chaos, fleet, say)
    _tell_rest(comparison, truths, strangers, say)
    return not strangers and not comparison.poisoned and not any(each.finding.is_defect for each in judgements)


def _tell_outcomes(judgements: list[Judgement], say: Callable[[str], None]) -> None:
    for line in report.outcome_table(judgements):
        say(line)
    say("")
    for line in report.finding_table(judgements):
        say(line)
    say("")
    not_right = [finding for finding in Finding if finding is not Finding.RIGHT and not finding.is_defect]
    for line in [*report.reasons(judgements, not_right), *report.defects(judgements)]:
        say(line)


def _tell_faults(chaos: Chaos, fleet: Fleet, say: Callable[[str], None]) -> None:
    happened = {**chaos.counts, **fleet.skews}
    say("faults: " + ", ".join(f"{count} x {name}" for name, count in sorted(happened.items())))
    say("started again: " + (", ".join(f"{count} x {name}" for name, count in fleet.restarts.items()) or "nobody"))


def _tell_rest(
    comparison: Comparison, truths: dict[str, JobTruth], strangers: list[str], say: Callable[[str], None]
) -> None:
    runs = sum(len(truth.runs) for truth in truths.values())
    doubles = report.duplicates(truths)
    say(f"{runs} runs, {len(doubles)} jobs of which one attempt ran twice {doubles[:5] or ''}")
    say(
        f"events dropped on the full disk, as the ledger counts them: {comparison.dropped}; unreadable lines: "
        f"{comparison.poisoned}"
    )
    if strangers:
        say(f"WRONG: the ledger knows {len(strangers)} jobs that nobody sent: {strangers[:5]}")


def random_seed() -> int:
    """Return a seed nobody chose."""
    return random.SystemRandom().randrange(1_000_000)
