"""One text for one value."""

from __future__ import annotations

import hashlib
import json
from enum import IntEnum, StrEnum
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger.history.canonical import DEPTH_LIMIT, NotJson, canonical_json, child_path, digest, plain_json

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=25,
)


def same(one: Any, other: Any) -> bool:
    """Equal with the types of numbers, and with the signs of zeros."""
    return repr(one) == repr(other)


@given(values)
def test_reading_the_text_gives_the_value_back(value: Any) -> None:
    assert same(plain_json(json.loads(canonical_json(value))), json.loads(json.dumps(value, sort_keys=True)))


@given(values)
def test_the_text_of_what_was_read_is_the_same_text(value: Any) -> None:
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(max_size=10), values, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(fields: dict[str, Any], random: Random) -> None:
    keys = list(fields)
    random.shuffle(keys)
    assert canonical_json({key: fields[key] for key in keys}) == canonical_json(fields)
    assert digest({key: fields[key] for key in keys}) == digest(fields)


@given(values, values)
def test_two_values_share_a_digest_only_if_json_carries_them_alike(one: Any, other: Any) -> None:
    alike = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest(one) == digest(other)) == alike


@given(values)
def test_plain_json_leaves_json_as_it_is(value: Any) -> None:
    assert same(plain_json(value), value)


def test_the_text_has_no_spaces_and_keeps_unicode() -> None:
    assert (
        canonical_json({"b": [1, 2.0, None, True], "a": "é\u4e16\U0001f30a"}) == '{"a":"é世🌊","b":[1,2.0,null,true]}'
    )


def test_the_digest_is_the_sha256_of_the_text() -> None:
    assert digest({"a": "é"}) == hashlib.sha256('{"a":"é"}'.encode()).hexdigest()


def test_different_things_have_different_digests() -> None:
    different = [{}, {"a": None}, {"a": ""}, {"a": 0}, {"a": 0.0}, {"a": False}, {"a": "0"}, {"a": []}, {"a": {}}]
    assert len({digest(value) for value in different}) == len(different)


def test_the_order_of_lists_matters() -> None:
    assert digest([1, 2]) != digest([2, 1])


def test_a_tuple_counts_as_a_list() -> None:
    assert canonical_json((1, (2,))) == canonical_json([1, [2]])


def test_half_a_surrogate_pair_from_a_message_has_a_digest() -> None:
    assert len(digest(json.loads('"\\ud800"'))) == 64


def test_huge_integers_stay_exact() -> None:
    assert json.loads(canonical_json(2**80 + 1)) == 2**80 + 1


def circle() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    "value", [float("nan"), [float("inf")], {"a": -float("inf")}, b"x", {1, 2}, object(), circle(), {"a": 1, 2: 3}]
)
def test_what_json_has_no_word_for_is_refused(value: Any) -> None:
    with pytest.raises(NotJson, match="cannot be written as JSON"):
        canonical_json(value)


@pytest.mark.parametrize(
    ("value", "path", "problem"),
    [
        (float("nan"), "", "finite number, not nan"),
        ({"a": [0, float("inf")]}, "a[1]", "finite number, not inf"),
        ({"a": {"b": b"x"}}, "a.b", "not bytes"),
        ({"a": {1, 2}}, "a", "not set"),
        ({1: 2}, "", "text as its keys, not a number"),
        ({"a": "\udfff"}, "a", "surrogate"),
        ({"\ud800": 1}, "", "surrogate"),
        (circle(), "[0]" * (DEPTH_LIMIT + 1), "nested deeper"),
        (lambda: None, "", "not function"),
    ],
)
def test_plain_json_names_the_place_that_is_not_json(value: Any, path: str, problem: str) -> None:
    with pytest.raises(NotJson, match=problem) as refusal:
        plain_json(value)
    assert refusal.value.path == path


def test_plain_json_normalises_what_means_the_same() -> None:
    class Mood(StrEnum):
        WARM = "warm"

    class Level(IntEnum):
        HIGH = 3

    plain = plain_json({"a": (1, (2,)), "b": Path("x/y"), "c": Mood.WARM, "d": Level.HIGH})
    assert plain == {"a": [1, [2]], "b": "x/y", "c": "warm", "d": 3}
    assert type(plain["c"]) is str
    assert type(plain["d"]) is int


def test_plain_json_copies() -> None:
    value = {"a": [1]}
    plain_json(value)["a"].append(2)
    assert value == {"a": [1]}


def test_a_place_is_written_as_people_write_it() -> None:
    assert child_path(child_path(child_path("", "stages"), 1), "settings") == "stages[1].settings"
    assert child_path("a", "b\x1b[31m") == "a.b?[31m"
    assert len(child_path("", "x" * 1_000)) == 60
