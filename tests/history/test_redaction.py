"""What people may see of a job."""

from __future__ import annotations

import subprocess
import sys
import time
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger.history.redaction import find_secret, hide_password, redact, redact_text, summarise


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:hunter2@cache:6379/0", "redis://:[redacted]@cache:6379/0"),
        ("redis://:a@h1/0;redis://:b@h2/0", "redis://:[redacted]@h1/0;redis://:[redacted]@h2/0"),
        ("postgresql://jo:p@ss/word@db/x", "postgresql://jo:[redacted]@db/x"),
        ("Error 111 connecting to amqp://u:p@h:5672//.", "Error 111 connecting to amqp://u:[redacted]@h:5672//."),
        ("redis://:********@cache/0", "redis://:********@cache/0"),
        ("https://h/a?token=abc&size=5", "https://h/a?token=[redacted]&size=5"),
        ("Authorization: Bearer abc", "Authorization: [redacted]"),
        ("{'Authorization': 'Bearer abc', 'a': 1}", "{'Authorization': '[redacted]', 'a': 1}"),
        ('{"password": "x y", "steps": 5}', '{"password": "[redacted]", "steps": 5}'),
        ('{\\"password\\": \\"x y\\"}', '{\\"password\\": \\"[redacted]\\"}'),
        ("password='a b c', steps=5", "password='[redacted]', steps=5"),
        ("password=hunter2 steps=5", "password=[redacted] steps=5"),
        ("login --password hunter2 --max-tokens 5", "login --password [redacted] --max-tokens 5"),
        ("invalid token: 0123456789abcdef01", "invalid token: [redacted]"),
        ("Cookie: session=abc; other=def", "Cookie: [redacted]"),
        ('password=""', 'password=""'),
        ("max_tokens=5, keyword: x, (secret:1.2)", "max_tokens=5, keyword: x, (secret:1.2)"),
        ("", ""),
    ],
)
def test_a_text_is_shown_without_its_secrets(text: str, shown: str) -> None:
    assert redact_text(text) == shown
    assert redact_text(shown) == shown


def test_redact_walks_through_everything_and_keeps_the_rest() -> None:
    value = {
        "password": "hunter2",
        "pin_password": 1234,
        "items": [{"apiKey": "x"}, ("redis://:p@h/0", 5)],
        "headers": [("Authorization", "x"), ["X-Api-Key", "y"]],
        "fields": [{"name": "token", "value": "z"}],
        "max_tokens": 77,
        "token": None,
        "none": None,
        "number": 1.5,
    }
    assert redact(value) == {
        "password": "[redacted]",
        "pin_password": "[redacted]",
        "items": [{"apiKey": "[redacted]"}, ("redis://:[redacted]@h/0", 5)],
        "headers": [("Authorization", "[redacted]"), ["X-Api-Key", "[redacted]"]],
        "fields": [{"name": "token", "value": "[redacted]"}],
        "max_tokens": 77,
        "token": None,
        "none": None,
        "number": 1.5,
    }


def test_redact_changes_a_copy() -> None:
    value = {"a": [{"password": "x"}]}
    redact(value)
    assert value == {"a": [{"password": "x"}]}


def test_redact_ends_in_a_circle() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert "[redacted]" in str(redact(circle))
    assert find_secret(circle) is not None


keys = st.sampled_from(["a", "password", "token", "apiKey", "headers", "name", "value", "max_tokens", "x"])
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=12)
    | st.sampled_from(
        ["redis://:p@h", "token", "password=x y", "Bearer abcdefgh1", "[redacted]", "***", "Authorization"]
    )
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_find_secret_and_redact_agree(value: Any) -> None:
    shown = redact(value)
    assert (find_secret(value) is None) == (shown == value)
    assert find_secret(shown) is None
    assert redact(shown) == shown


@given(st.text(alphabet="abz09 :/@=?&.-_\"'\\(){}[],;*\nBearerbasictokenpasswordkey", max_size=60))
def test_redacting_a_text_twice_changes_nothing_more(text: str) -> None:
    once = redact_text(text)
    assert redact_text(once) == once


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a-",
        "password ",
        'password="',
        "x://a:",
        "x://",
        "?a.b-c",
        "cookie:",
        "authorization ",
        "basic ",
        "--token",
        "eyJaaaaaaaaa.",
        "key eyJ",
        "-----BEGIN PRIVATE" + " KEY-----",
        "a:@",
        "token:",
        "bearer a",
        "sk-a",
        " ",
        "=1:AA",
    ],
)
def test_redaction_takes_time_in_proportion_to_the_text(unit: str) -> None:
    text = "key token " + unit * (100_000 // len(unit))
    started = time.process_time()
    redact_text(text)
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hunter2@cache/0", "redis://:[redacted]@cache/0"),
        ("postgresql+psycopg://postgres@127.0.0.1/x", "postgresql+psycopg://postgres@127.0.0.1/x"),
        ("redis://u:with space'and\"quotes@h/0", "redis://u:[redacted]@h/0"),
        ("sqlite:////data/ledger.db", "sqlite:////data/ledger.db"),
        (
            "redis+socket:///run/broker.sock?password=x&virtual_host=1",
            "redis+socket:///run/broker.sock?password=[redacted]&virtual_host=1",
        ),
        ("memory://", "memory://"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert hide_password(url) == shown


class Explosive:
    def __repr__(self) -> NoReturn:
        raise RuntimeError("repr was called")

    __str__ = __len__ = __iter__ = __eq__ = __hash__ = __repr__  # type: ignore[assignment]


class ExplosiveDict(dict):  # type: ignore[type-arg]
    def items(self) -> NoReturn:
        raise RuntimeError("items was called")


class Size(Enum):
    LARGE = "l"


@pytest.mark.parametrize(
    ("args", "kwargs", "summary"),
    [
        (("photo.jpg",), {"width": 800}, "photo.jpg, width=800"),
        ((), {}, ""),
        (None, None, ""),
        (("a", 1, 2.5, None, True), {}, "a, 1, 2.5, None, True"),
        (({"steps": 20, "prompt": "a cat"},), {}, "{steps=20, prompt=a cat}"),
        (([1, 2, 3, 4, 5, 6],), {}, "[1, 2, 3, 4, … 6 in all]"),
        (([[1], {"a": 1}, [], {}],), {}, "[[…], {…}, [], {}]"),
        ((b"bytes", bytearray(3)), {}, "(5 bytes), (3 bytes)"),
        (
            (Path("a/b.png"), UUID(int=5), Decimal("1.5"), Size.LARGE),
            {},
            "a/b.png, 00000000-0000-0000-0000-000000000005, 1.5, LARGE",
        ),
        ((object(), lambda: None), {}, "(object), (function)"),
        ((10**5_000,), {}, "(a long number)"),
        (("two\nlines\x1b[31m",), {}, "two lines [31m"),
        ((Explosive(),), {}, "(Explosive)"),
        ((ExplosiveDict(a=1),), {}, "(arguments that cannot be shown)"),
        (
            (),
            {"password": "hunter2", "token": "x", "max_tokens": 5},
            "password=[redacted], token=[redacted], max_tokens=5",
        ),
        (("redis://:hunter2@h/0",), {}, "redis://:[redacted]@h/0"),
        (([["Authorization", "x"], ("X-Api-Key", "y")],), {}, "[[Authorization, [redacted]], [X-Api-Key, [redacted]]]"),
        ((["Authorization", "x"],), {}, "[Authorization, [redacted]]"),
        (("/data/" + "deep/" * 20 + "photo.jpg",), {}, "…ep/deep/deep/deep/deep/deep/deep/deep/photo.jpg"),
        ("photo.jpg", {}, "photo.jpg"),
    ],
)
def test_a_summary_is_a_line_for_people(args: Any, kwargs: Any, summary: str) -> None:
    assert summarise(args, kwargs) == summary


def test_a_secret_that_reaches_beyond_the_shown_part_is_hidden() -> None:
    assert "hunter" not in summarise(("redis://:" + "hunter2" * 30 + "@h/0",), {})


@given(values, values, st.integers(min_value=1, max_value=200))
def test_a_summary_is_short_printable_and_keeps_secrets(one: Any, other: Any, limit: int) -> None:
    summary = summarise((one,), {"other": other}, limit)
    assert len(summary) <= limit
    assert summary.isprintable()
    assert "redis://:p@h" not in summary


def test_a_summary_costs_the_same_for_huge_arguments() -> None:
    huge = [{"prompt": "x" * 1_000_000, "items": list(range(100_000))}] * 10_000
    started = time.process_time()
    for _ in range(100):
        summarise((huge, "y" * 10_000_000), {"a": huge})
    assert time.process_time() - started < 2


def test_redaction_imports_nothing_heavy() -> None:
    heavy = "('pydantic', 'sqlalchemy', 'celery', 'kombu', 'redis', 'jobledger.workers', 'jobledger.settings')"
    code = f"import sys, jobledger.history.redaction; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
