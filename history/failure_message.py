"""What the messages of one failure have in common: the words stay, the data goes."""

from __future__ import annotations

import re
from typing import Final

#: Characters of a message that are looked at, and that a pattern has at most.
_LOOKED_AT: Final = 500
_PATTERN_LENGTH: Final = 200

#: Errors about names in code, where a quoted name says which failure it is.
_ABOUT_NAMES: Final = frozenset(
    {
        *("AttributeError", "ImportError", "KeyError", "ModuleNotFoundError", "NameError", "NotImplementedError"),
        *("NotRegistered", "TypeError", "UnboundLocalError", "DoesNotExist", "FieldDoesNotExist"),
    }
)
_NAME: Final = re.compile(r"(?!\d)[^\W\d][\w.]{0,59}(?:\(\))?")
#: Words that say that the quoted word after them, or before them, is a name in code and no data.
_NAMED_AFTER: Final = re.compile(
    r"\b(?:argument|attribute|class|column|constraint|database|field|function|index|key|keyword|method|model|module|"
    r"name|named|object|option|parameter|property|queue|relation|role|schema|setting|table|task|type|variable)s?:?\s*$",
    re.IGNORECASE,
)
_NAMED_BEFORE: Final = re.compile(
    r"\s*(?:argument|attribute|column|constraint|field|is not defined|method|module|object|parameter|property|relation"
    r"|table|type|violates)\b",
    re.IGNORECASE,
)
_QUOTED: Final = re.compile(
    r"""(?<!\w)(?P<quote>['"`])(?P<text>(?:(?!(?P=quote)).|(?<=\w)(?P=quote)(?=\w))*)(?:(?P=quote)|$)"""
)
_INSIDE: Final = r"(?:[^\[\]{}()]|[\[{(]…[\]})])*"
_BRACKETS: Final = re.compile(rf"\[{_INSIDE}\]|\{{{_INSIDE}\}}|\({_INSIDE}\)")
#: Brackets that hold a list, a map or a call's arguments, and no remark.
_DATA_INSIDE: Final = re.compile(r"['\"=…]|,.*,|^.\d+(?:, *\d+)*.$|^.{80}")

_CODE: Final = re.compile(
    r"\b((?:errno|http(?:/\d(?:\.\d)?| error| status)?|status(?: code)?|(?:exit|return)(?: status| ?code)|signal"
    r"|sqlstate)[ :=]{0,3})(\d{1,5})\b|^(\d{3})(?= (?:client|server) error)",
    re.IGNORECASE,
)
_DIGIT_OFFSET: Final = 0xE010

#: What is data wherever it stands, in the order of looking.
_DATA: Final = tuple(
    (re.compile(expression), shown)
    for expression, shown in (
        (r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s'\"<>)\]}]+", "<url>"),
        (r"[\w.+-]+@[\w-]+\.[\w.-]*\w", "<email>"),
        (r"(?<![\w<])(?:[A-Za-z]:\\|\\\\)[^\s'\"<>|;)\]}]+", "<path>"),
        (r"(?<![\w<>.])(?:~|\.{1,2})?/[\w.@%+~-][^\s'\",:;<>)\]}]*", "<path>"),
        (r"(?<![\w<>/])[\w.-]+(?:/[\w.%+-]+){2,}", "<path>"),
        (
            r"(?<![\w<>/])[\w./%+-]+\.(?:avi|bin|bmp|csv|db|docx?|gif|gz|html?|jpe?g|jsonl?|log|mkv|mov|mp[34]|npy|parquet"
            r"|pdf|pkl|png|sqlite|svg|tar|tiff?|tmp|tsv|txt|wav|webp|xlsx?|xml|ya?ml|zip)\b",
            "<path>",
        ),
        (r"0x[0-9a-fA-F]+", "#"),
        (r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b", "#"),
        (r"(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{1,4}(?![\w:])", "#"),
        (r"(?<==)\([^()]*\)", "(…)"),
        (r"(?<=\w=)(?:\[redacted\]|[^\s,;(…)\]}#<]+)", "…"),
        (r"\b(?=\w*[A-Za-z])(?=\w*\d)[\w-]{10,}\b", "#"),
        (r"\b[0-9a-fA-F]{16,}\b", "#"),
        (r"(?:(?<!\w)[+-])?\d+(?:[.,:/_-]\d+)*", "#"),
        (r"#(?:[\s,;x-]{1,3}#)+", "#"),
    )
)


def pattern_of(message: str, error_type: str) -> str:
    """Return a message's first line without its data: numbers, ids, addresses, paths, lists, quoted values.

    What names a thing in code (``no attribute 'split'``, ``column "price"``) and what says which error it was
    (``HTTP 503``, ``[Errno 2]``) stays. At most 200 characters.
    """
    line = next((line for line in message[:_LOOKED_AT].splitlines() if line.strip()), "")
    text = " ".join(_CODE.sub(_hide_code, line).split())
    text = _without_lists(text)
    text = _QUOTED.sub(lambda quoted: _shown_quote(quoted, text, error_type), text)
    for data, shown in _DATA:
        text = data.sub(shown, text)
    return text.translate(_SHOW_CODES)[:_PATTERN_LENGTH]


def _hide_code(found: re.Match[str]) -> str:
    """A code's digits become signs that are no digits, until the rest of them is taken out."""
    digits = (found[2] or found[3]).translate(_HIDE_DIGITS)
    return (found[1] or "") + digits


_HIDE_DIGITS: Final = {ord(str(digit)): _DIGIT_OFFSET + digit for digit in range(10)}
_SHOW_CODES: Final = {hidden: digit for digit, hidden in _HIDE_DIGITS.items()}


def _without_lists(text: str) -> str:
    while (shorter := _BRACKETS.sub(_shown_brackets, text)) != text:
        text = shorter
    return text


def _shown_brackets(found: re.Match[str]) -> str:
    text = found[0]
    return f"{text[0]}…{text[-1]}" if _DATA_INSIDE.search(text) else text


def _shown_quote(quoted: re.Match[str], text: str, error_type: str) -> str:
    if _NAME.fullmatch(quoted["text"]) and (
        error_type in _ABOUT_NAMES
        or _NAMED_AFTER.search(text, 0, quoted.start())
        or _NAMED_BEFORE.match(text, quoted.end())
    ):
        return quoted[0]
    return f"{quoted['quote']}…{quoted['quote']}"
