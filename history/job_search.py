"""What a search looks at, and what it means: every word occurs somewhere in a job's text, whatever its case."""

from __future__ import annotations

from typing import Final

from .job import JobHistoryEntry

#: Characters of the shortest word that a search can look for by an index.
SHORTEST_WORD: Final = 3
#: Characters of an error that are searched: its beginning says what happened.
_ERROR_LENGTH: Final = 2_000


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a search, each once, as they occur in ``document_of``.

    Raises:
        ValueError: when none of them is long enough.
    """
    words = tuple(dict.fromkeys(text.casefold().split()))
    if not any(len(word) >= SHORTEST_WORD for word in words):
        raise ValueError(f"A search needs a word of at least {SHORTEST_WORD} characters; {text[:80]!r} has none.")
    return words


def document_of(entry: JobHistoryEntry) -> str:
    """Return a job's text: summary, task, tags, the values of its metadata, and its error."""
    parts: list[str] = []
    if entry.facts is not None:
        facts = entry.facts
        parts += [facts.payload_summary, facts.task, *facts.tags, *(value for _, value in facts.metadata)]
    end = entry.effective_end
    if end is not None and end.error_type:
        parts.append(end.error_type)
    if entry.last_error:
        parts.append(entry.last_error[:_ERROR_LENGTH])
    # A word has no white space in it, so none is found across two parts.
    return "\n".join(part for part in parts if part).casefold()


def has_words(document: str, words: tuple[str, ...]) -> bool:
    """Whether all of the words occur in the document, also as parts of longer ones."""
    return all(word in document for word in words)


def is_searched_anew(old: JobHistoryEntry | None, new: JobHistoryEntry) -> bool:
    """Whether a search must look at another text, or in another place, than before."""
    return _searched(old) != _searched(new)


def _searched(entry: JobHistoryEntry | None) -> object:
    if entry is None or (entry.facts is None and entry.last_error is None):
        return None
    end = entry.effective_end
    return entry.created_at, entry.facts, entry.last_error, end.error_type if end else None
