"""Tags, groups and metadata: what is taken and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from jobledger.errors import InvalidJob
from jobledger.history.labels import checked_group, checked_metadata, checked_tags

SECRET = "redis://:hunter2@cache/0"


def test_tags_are_words_each_once_and_sorted() -> None:
    assert checked_tags(["red", "blue", "red", "two words", "größe"]) == ("blue", "größe", "red", "two words")
    assert checked_tags([str(number) for number in range(20)]) != ()


def test_metadata_is_sorted_by_key_so_that_equal_metadata_is_the_same() -> None:
    assert checked_metadata({"b": "2", "a": "1"}) == checked_metadata({"a": "1", "b": "2"}) == (("a", "1"), ("b", "2"))


def test_a_group_is_a_name_or_nothing() -> None:
    assert checked_group(None) is None
    assert checked_group("october") == "october"


@pytest.mark.parametrize(
    ("check", "value", "told"),
    [
        (checked_tags, "one", "tags: must be a list of at most 20 words"),
        (checked_tags, None, "tags: must be a list"),
        (checked_tags, {"a": 1}, "tags: must be a list"),
        (checked_tags, [str(number) for number in range(21)], "at most 20"),
        (checked_tags, [7], "tags: must be text, not int"),
        (checked_tags, ["x" * 101], "tags: must be 1 to 100 printable characters"),
        (checked_tags, [""], "tags: must be 1 to 100"),
        (checked_tags, ["  "], "tags: must be 1 to 100"),
        (checked_tags, ["a\x00b"], "printable"),
        (checked_tags, ["a\nb"], "printable"),
        (checked_tags, ["\ud800"], "printable"),
        (checked_tags, [SECRET], "tags: looks like a secret"),
        (checked_group, 7, "group_id: must be text, not int"),
        (checked_group, "x" * 256, "group_id: must be 1 to 255"),
        (checked_group, SECRET, "group_id: looks like a secret"),
        (checked_metadata, [], "metadata: must be an object with at most 20 names"),
        (checked_metadata, {str(number): "x" for number in range(21)}, "at most 20"),
        (checked_metadata, {1: "x"}, "metadata: must be text, not int"),
        (checked_metadata, {"x" * 101: "x"}, "metadata: must be 1 to 100"),
        (checked_metadata, {"order": 7}, "metadata.order: must be text, not int"),
        (checked_metadata, {"order": "x" * 201}, "metadata.order: must be 1 to 200"),
        (checked_metadata, {"order": "a\x00"}, "metadata.order: must be 1 to 200 printable"),
        (checked_metadata, {"api_key": "abcdefgh"}, "metadata.api_key: looks like a secret"),
        (checked_metadata, {"cache": SECRET}, "metadata.cache: looks like a secret"),
        (checked_metadata, {SECRET: "x"}, "looks like a secret"),
    ],
)
def test_what_cannot_be_a_label_is_refused_by_its_name(check: Any, value: Any, told: str) -> None:
    with pytest.raises(InvalidJob, match=told) as refused:
        check(value)
    assert "hunter2" not in str(refused.value)
