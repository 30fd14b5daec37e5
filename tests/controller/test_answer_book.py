"""The bookkeeping of questions and answers: who answered what, twice, late, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from jobledger.controller.answer_book import QUESTIONS, RARE_QUESTIONS, AnswerBook
from jobledger.controller.live_facts import LiveState

A, B = "celery@a", "celery@b"


def request(job_id: str, **more: Any) -> dict[str, Any]:
    """Return what Celery tells about a request."""
    return {
        "id": job_id,
        "name": "pictures.enhance",
        "args": ["a secret"],
        "kwargs": {"password": "a secret"},
        "time_start": None,
        "delivery_info": {"exchange": "", "routing_key": "pictures\x06\x162", "priority": 2, "redelivered": False},
        **more,
    }


def answer(book: AnswerBook, number: int, node: str, *active: str, reserved: tuple[str, ...] = ()) -> None:
    book.take(number, "reserved", node, [request(job_id) for job_id in reserved])
    book.take(number, "active", node, [request(job_id) for job_id in active])


def states(book: AnswerBook) -> dict[str, list[str]]:
    return {job_id: sorted(fact.state for fact in facts) for job_id, facts in book.facts().items()}


@pytest.fixture
def book() -> AnswerBook:
    return AnswerBook()


def test_an_answer_counts_when_it_is_complete(book: AnswerBook) -> None:
    number = book.open_round(QUESTIONS, [A])
    assert not book.take(number, "reserved", A, [request("waits")])
    assert book.facts() == {}
    assert not book.is_settled()
    assert book.take(number, "active", A, [request("runs")])
    assert states(book) == {"waits": ["reserved"], "runs": ["active"]}
    assert book.is_settled()


def test_a_newer_answer_replaces_an_older_one(book: AnswerBook) -> None:
    answer(book, book.open_round(QUESTIONS, [A]), A, "first")
    answer(book, book.open_round(QUESTIONS, [A]), A, "second")
    assert states(book) == {"second": ["active"]}


def test_no_answer_changes_nothing_and_leaves_the_round_open(book: AnswerBook) -> None:
    first = book.open_round(QUESTIONS, [A])
    answer(book, first, A, "job")
    asked_at = book.nodes()[A].at
    book.open_round(QUESTIONS, [A])
    assert not book.is_settled()
    assert states(book) == {"job": ["active"]}
    assert book.nodes()[A].at == asked_at


def test_a_late_answer_counts_as_of_its_question_and_never_replaces_a_newer_one(book: AnswerBook) -> None:
    first, second = book.open_round(QUESTIONS, [A]), book.open_round(QUESTIONS, [A])
    answer(book, first, A, "old")
    first_at = book.nodes()[A].at
    answer(book, second, A, "new")
    answer(book, first, A, "very late")
    assert states(book) == {"new": ["active"]}
    assert first_at is not None
    assert (book.nodes()[A].at or 0) > first_at


def test_an_answer_to_a_round_that_is_long_over_is_dropped(book: AnswerBook) -> None:
    first = book.open_round(QUESTIONS, [A])
    for _ in range(20):
        book.open_round(QUESTIONS, [A])
    answer(book, first, A, "job")
    assert book.nodes() == {}


@pytest.mark.parametrize("reply", [{"error": "KeyError('active')"}, None, "text", 3])
def test_a_reply_that_is_no_list_is_no_answer(book: AnswerBook, reply: Any) -> None:
    number = book.open_round(QUESTIONS, [A])
    book.take(number, "reserved", A, [])
    assert not book.take(number, "active", A, reply)
    assert not book.is_settled()


def test_parts_of_a_reply_that_make_no_sense_are_left_out(book: AnswerBook) -> None:
    number = book.open_round((*RARE_QUESTIONS, *QUESTIONS), [A])
    strange: list[Any] = [None, {}, {"id": 3}, {"request": "text"}, {"eta": "soon", "request": request("job")}]
    book.take(number, "active_queues", A, [None, {}, {"name": "pictures"}])
    book.take(number, "scheduled", A, strange)
    answer(book, number, A)
    assert states(book) == {"job": ["scheduled"]}
    assert book.facts()["job"][0].due_at is None
    assert book.queues() == {"pictures"}


def test_a_fact_holds_what_celery_tells_but_never_arguments(book: AnswerBook) -> None:
    number = book.open_round((*RARE_QUESTIONS, *QUESTIONS), [A])
    book.take(number, "active_queues", A, [])
    book.take(number, "scheduled", A, [{"eta": "2030-01-01T12:00:00+00:00", "request": request("waits")}])
    book.take(number, "reserved", A, [])
    book.take(number, "active", A, [request("runs", time_start=1_893_499_200.0)])
    waits, runs = book.facts()["waits"][0], book.facts()["runs"][0]
    assert (waits.state, waits.due_at) == (LiveState.SCHEDULED, datetime(2030, 1, 1, 12, tzinfo=UTC))
    assert (runs.task, runs.queue, runs.priority) == ("pictures.enhance", "pictures", 2)
    assert runs.started_at == datetime(2030, 1, 1, 12, tzinfo=UTC)
    assert b"secret" not in msgspec.json.encode([waits, runs])


def test_the_rarely_asked_keeps_its_answer_through_rounds_that_do_not_ask_it(book: AnswerBook) -> None:
    wide = book.open_round((*RARE_QUESTIONS, *QUESTIONS), [A])
    book.take(wide, "active_queues", A, [{"name": "pictures"}])
    book.take(wide, "scheduled", A, [{"eta": None, "request": request("waits")}])
    answer(book, wide, A)
    answer(book, book.open_round(QUESTIONS, [A]), A, "runs")
    assert states(book) == {"waits": ["scheduled"], "runs": ["active"]}
    assert book.nodes()[A].queues == ("pictures",)


# -- several workers under one name


def test_two_workers_of_one_name_are_counted_and_their_jobs_are_joined(book: AnswerBook) -> None:
    number = book.open_round(QUESTIONS, [A])
    answer(book, number, A, "of the first")
    answer(book, number, A, "of the second")
    assert book.nodes()[A].workers == 2
    assert states(book) == {"of the first": ["active"], "of the second": ["active"]}


def test_once_a_name_is_known_to_be_shared_both_are_waited_for(book: AnswerBook) -> None:
    first = book.open_round(QUESTIONS, [A])
    answer(book, first, A, "one")
    answer(book, first, A, "two")
    second = book.open_round(QUESTIONS, [A])
    answer(book, second, A, "one")
    assert not book.is_settled()
    assert states(book) == {"one": ["active"], "two": ["active"]}
    answer(book, second, A, "three")
    assert book.is_settled()
    assert states(book) == {"one": ["active"], "three": ["active"]}


def test_when_one_of_two_workers_of_a_name_is_gone_the_other_ones_word_counts_again(book: AnswerBook) -> None:
    first = book.open_round(QUESTIONS, [A])
    answer(book, first, A, "one")
    answer(book, first, A, "two")
    answer(book, book.open_round(QUESTIONS, [A]), A, "one")
    book.open_round(QUESTIONS, [A])
    assert book.nodes()[A].workers == 1
    assert states(book) == {"one": ["active"]}


# -- whom to ask


def test_registered_nodes_and_those_that_answer_are_asked(book: AnswerBook) -> None:
    book.register({A: "boot-1"})
    answer(book, book.open_round(QUESTIONS, []), B)
    assert book.targets() == [A, B]


def test_a_registered_node_that_was_asked_and_is_silent_is_left_to_the_wide_rounds(book: AnswerBook) -> None:
    book.register({A: "boot-1"})
    book.open_round(QUESTIONS, [A])
    assert book.targets() == []
    assert book.nodes()[A].at is None


def test_a_node_that_says_goodbye_is_forgotten_with_its_jobs(book: AnswerBook) -> None:
    book.register({A: "boot-1", B: "boot-2"})
    answer(book, book.open_round(QUESTIONS, [A]), A, "job")
    book.register({B: "boot-2"})
    assert book.facts() == {}
    assert list(book.nodes()) == [B]


def test_a_plain_worker_is_not_forgotten_because_it_is_not_registered(book: AnswerBook) -> None:
    answer(book, book.open_round(QUESTIONS, []), A, "job")
    book.register({B: "boot-2"})
    assert sorted(book.nodes()) == [A, B]
    assert book.nodes()[A].boot_id is None
    assert book.nodes()[B].boot_id == "boot-2"


def test_nothing_asked_is_settled(book: AnswerBook) -> None:
    assert book.is_settled()
    assert not book.has_heard()
