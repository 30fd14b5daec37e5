"""Names and numbers, mapped in one place."""

from __future__ import annotations

from typing import Any

import pytest
from jobledger import Priority
from jobledger.errors import InvalidJob
from jobledger.workers.priorities import priority_name, wire_priority


def test_redis_serves_low_numbers_first_and_rabbitmq_high_ones() -> None:
    assert [wire_priority(name, "redis") for name in Priority] == [2, 5, 8]
    assert [wire_priority(name, "amqp") for name in Priority] == [8, 5, 2]


@pytest.mark.parametrize("transport", ["redis", "redis+socket", "rediss", "sentinel"])
def test_no_name_stands_for_the_level_that_redis_serves_before_all_others(transport: str) -> None:
    assert all(wire_priority(name, transport) > 0 for name in Priority)


def test_numbers_pass_as_they_are_and_names_in_any_case() -> None:
    assert [wire_priority(number, "redis") for number in range(10)] == list(range(10))
    assert wire_priority("HIGH", "redis") == 2
    assert wire_priority(None, "redis") == 5


@pytest.mark.parametrize("priority", [-1, 10, 1.5, "urgent", "", True, [], "5"])
def test_anything_else_is_refused_with_what_is_allowed(priority: Any) -> None:
    with pytest.raises(InvalidJob, match="high, normal, low or a number from 0 to 9"):
        wire_priority(priority, "redis")


def test_people_read_names_where_there_are_names() -> None:
    assert [priority_name(level) for level in (None, 0, 2, 5, 8, 9)] == ["none", "0", "high", "normal", "low", "9"]
