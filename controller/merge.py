"""How the ledger's entries and the workers' answers become one list of jobs.

The rules: each job once; an end in the ledger is final, whatever a worker still says; a worker that says now that it
runs a job is believed about the status and about the place; nothing is concluded from silence, nor from the absence
of a job in an answer; the filter and the limit come last.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from ..history.job import ACTIVE_STATUSES, Evidence, JobHistoryEntry, JobStatus
from ..workers.priorities import priority_name
from .entry_view import view_of
from .job_view import JobViewModel, LiveSource
from .live_facts import LiveFact, LiveSnapshot, LiveState, NodeAnswer

#: How much later than the ledger's moment an answer must be to count as news. The two moments may be of two machines'
#: clocks, therefore only what is noted beside a job depends on it, never its status.
NEWS_TOLERANCE: Final = timedelta(seconds=2)
_NOT_IN_THE_LEDGER: Final = "the ledger does not know this job"
_CANCEL_ELSEWHERE: Final = f"{_NOT_IN_THE_LEDGER}; it was sent without Jobledger, cancel it where it was sent"


def merge(
    entries: Iterable[JobHistoryEntry],
    live: LiveSnapshot | None,
    *,
    statuses: Collection[JobStatus] = (),
    limit: int | None = None,
    actions_enabled: bool = True,
    now: float | None = None,
) -> list[JobViewModel]:
    """Return each job once, foreign ones first, then newest first.

    A live job without an entry is shown as foreign: ``entries`` must hold whatever the ledger knows about the jobs
    of ``live.job_ids()``, also where it does not fit the page. An empty ``statuses`` does not filter.

    Args:
        now: The moment for all ages, by the monotonic clock; unset: this one.
    """
    now = time.monotonic() if now is None else now
    known = {entry.job_id: entry for entry in entries}
    views = [merge_job(entry, live, actions_enabled=actions_enabled, now=now) for entry in known.values()]
    views.sort(key=_age_order, reverse=True)
    merged = foreign_jobs(live, known, now=now) + views
    wanted = [view for view in merged if not statuses or view.status in statuses]
    return wanted if limit is None else wanted[: max(0, limit)]


def merge_job(
    entry: JobHistoryEntry, live: LiveSnapshot | None, *, actions_enabled: bool = True, now: float | None = None
) -> JobViewModel:
    """Return one job that the ledger knows."""
    view = view_of(entry, actions_enabled=actions_enabled)
    if live is None:
        return view
    return _Merger(entry, view, live, time.monotonic() if now is None else now).merged()


def foreign_jobs(live: LiveSnapshot | None, known: Collection[str], *, now: float | None = None) -> list[JobViewModel]:
    """Return the jobs that workers have and that are not among the known ids, by id."""
    if live is None:
        return []
    now = time.monotonic() if now is None else now
    return [_foreign(live, live.facts_about(job_id, now), now) for job_id in sorted(live.job_ids(now) - set(known))]


def _age_order(view: JobViewModel) -> tuple[float, str]:
    return view.created_at.timestamp() if view.created_at else 0.0, view.job_id


class _Merger:
    """One entry and the facts about it."""

    def __init__(self, entry: JobHistoryEntry, view: JobViewModel, live: LiveSnapshot, now: float) -> None:
        self._entry = entry
        self._view = view
        self._live = live
        self._now = now
        facts = live.facts_about(entry.job_id, now)
        self._running = [fact for fact in facts if fact.state is LiveState.ACTIVE and self._is_of_this_attempt(fact)]
        self._waiting = [fact for fact in facts if fact.state is not LiveState.ACTIVE]

    def merged(self) -> JobViewModel:
        if self._entry.status.is_terminal:
            return self._ended()
        if self._running:
            return self._runs()
        if self._waiting and self._entry.status is JobStatus.QUEUED:
            return self._waits()
        return self._held_beside() or self._unseen()

    def _is_of_this_attempt(self, fact: LiveFact) -> bool:
        """An answer may be older than the end of an attempt: its run then started before the next one was due."""
        due = self._entry.next_attempt_at
        return self._entry.attempt_started or due is None or fact.started_at is None or fact.started_at >= due

    def _ended(self) -> JobViewModel:
        news = self._news([*self._running, *self._waiting], self._entry.completed_at)
        return self._with_fact(news, live_note=self._after_the_end(news)) if news else self._view

    def _after_the_end(self, fact: LiveFact) -> str:
        end = self._entry.effective_end
        if fact.state is not LiveState.ACTIVE:
            return f"{fact.node} holds another copy of it, which waits ({fact.state})"
        if end is not None and end.evidence is Evidence.OWN:
            return f"{fact.node} runs it again: a second delivery"
        return f"{fact.node} still runs it: its own end will correct this one"

    def _runs(self) -> JobViewModel:
        fact = max(self._running, key=self._trust)
        return self._with_fact(
            fact,
            status=JobStatus.RUNNING,
            worker_id=fact.node,
            started_at=self._view.started_at or fact.started_at,
            next_attempt_at=None,
            live_note=self._several_runs() or self._doubt_about(fact.node),
        )

    def _several_runs(self) -> str | None:
        nodes = sorted({fact.node for fact in self._running})
        return f"it runs on {' and '.join(nodes)}: a second delivery" if len(nodes) > 1 else None

    def _waits(self) -> JobViewModel:
        fact = max(self._waiting, key=self._trust)
        return self._with_fact(
            fact,
            worker_id=fact.node,
            next_attempt_at=fact.due_at or self._view.next_attempt_at,
            live_note=self._doubt_about(fact.node) or _waiting_note(fact),
        )

    def _held_beside(self) -> JobViewModel | None:
        """A job that started, and that a node says later to hold without running it."""
        news = self._news(self._waiting, self._entry.started_at)
        if news is None:
            return None
        doubt = "a retry that is not recorded yet, or a second delivery"
        return self._with_fact(news, live_note=f"{news.node} holds a copy of it, which waits ({news.state}): {doubt}")

    def _unseen(self) -> JobViewModel:
        """No node says to have the job: only the one that took it last could say more."""
        node = self._entry.run_worker_id
        if node is None:
            return self._view
        answer = self._live.nodes.get(node)
        if answer is None or answer.is_silent(self._now):
            return self._unknown(node, answer)
        return self._absent(answer)

    def _unknown(self, node: str, answer: NodeAnswer | None) -> JobViewModel:
        return msgspec.structs.replace(
            self._view,
            live_source=LiveSource.STALE,
            live_age=answer.age(self._now) if answer else None,
            live_note=self._silence(node),
            cancel_state=self._cancel_state_of_silence(node),
        )

    def _absent(self, answer: NodeAnswer) -> JobViewModel:
        """The answer may be older or newer than an event that is on its way: the ledger stays right."""
        return msgspec.structs.replace(self._view, live_note=self._absence(answer))

    def _absence(self, answer: NodeAnswer) -> str | None:
        if answer.is_duplicated:
            return self._doubt_about(answer.node)
        if self._entry.run_boot_id and answer.boot_id and self._entry.run_boot_id != answer.boot_id:
            return f"{answer.node} was started again since; recovery decides"
        if self._entry.started_at and _is_news(answer.asked_at, self._entry.started_at):
            return f"{answer.node} answers that it does not run it: its end is on its way, or recovery decides"
        return None

    def _with_fact(self, fact: LiveFact, **changes: Any) -> JobViewModel:
        silent = self._live.is_silent(fact.node, self._now)
        if silent:
            changes["live_note"] = self._silence(fact.node)
            changes["cancel_state"] = self._cancel_state_of_silence(fact.node)
        return msgspec.structs.replace(
            self._view,
            live_source=LiveSource.STALE if silent else LiveSource.WORKER,
            live_age=max(0.0, self._now - fact.at),
            **changes,
        )

    def _trust(self, fact: LiveFact) -> tuple[bool, bool, float, str]:
        answers = not self._live.is_silent(fact.node, self._now)
        return answers, fact.node == self._entry.run_worker_id, fact.at, fact.node

    def _news(self, facts: list[LiveFact], moment: datetime | None) -> LiveFact | None:
        """The most trusted of the facts that a node said just now, later than the ledger's moment."""
        news = [
            fact
            for fact in facts
            if not self._live.is_silent(fact.node, self._now) and (moment is None or _is_news(fact.asked_at, moment))
        ]
        return max(news, key=lambda fact: (fact.state is LiveState.ACTIVE, self._trust(fact)), default=None)

    def _doubt_about(self, node: str) -> str | None:
        answer = self._live.nodes.get(node)
        if answer is None or not answer.is_duplicated:
            return None
        return f"{answer.workers} workers answer as {node}; give each its own name (-n)"

    def _silence(self, node: str) -> str:
        return _silence_of(self._live, node, self._now)

    def _cancel_state_of_silence(self, node: str) -> str | None:
        if self._entry.cancel_requested_at is None or self._entry.cancel_obstacle:
            return self._view.cancel_state
        return f"cancelling: node {node} does not answer"


def _foreign(live: LiveSnapshot, facts: tuple[LiveFact, ...], now: float) -> JobViewModel:
    fact = max(facts, key=lambda fact: (fact.state is LiveState.ACTIVE, not live.is_silent(fact.node, now), fact.at))
    status = JobStatus.RUNNING if fact.state is LiveState.ACTIVE else JobStatus.QUEUED
    return JobViewModel(
        job_id=fact.job_id,
        status=status,
        started_at=fact.started_at,
        task=fact.task,
        is_active=status in ACTIVE_STATUSES,
        worker_id=fact.node,
        priority=fact.priority,
        priority_name=priority_name(fact.priority),
        queue=fact.queue,
        next_attempt_at=fact.due_at,
        cancel_refusal=_CANCEL_ELSEWHERE,
        retry_refusal=_NOT_IN_THE_LEDGER,
        live_source=LiveSource.FOREIGN,
        live_age=max(0.0, now - fact.at),
        live_note=_silence_of(live, fact.node, now) if live.is_silent(fact.node, now) else _NOT_IN_THE_LEDGER,
    )


def _waiting_note(fact: LiveFact) -> str:
    return f"{fact.node} has it; it waits for {'a slot' if fact.state is LiveState.RESERVED else 'its time'}"


def _silence_of(live: LiveSnapshot, node: str, now: float) -> str:
    if live.unknown_since is not None:
        return f"the broker has not answered for {now - live.unknown_since:.0f} s, so {node} cannot be asked"
    answer = live.nodes.get(node)
    if answer is None:
        return f"{node} is not registered and does not answer"
    age = answer.age(now)
    return f"{node} has not answered yet" if age is None else f"{node} has not answered for {age:.0f} s"


def _is_news(asked_at: datetime | None, moment: datetime) -> bool:
    return asked_at is not None and asked_at > moment + NEWS_TOLERANCE
