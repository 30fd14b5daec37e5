"""The index that finds words, also parts of them, in ``job_documents``: made by hand, SQLAlchemy has no word for it.

It takes every run of three characters: SQLite's FTS5 with its tokenizer ``trigram``, PostgreSQL's extension
``pg_trgm``. A PostgreSQL that does not allow the extension gets no such index: searches then look at a bounded number
of jobs and give partial pages.
"""

from __future__ import annotations

import logging
from typing import Final

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

logger = logging.getLogger("jobledger.history")

#: What the schema's own tables do not tell of: the index, its tables, and the index of the documents' age.
SEARCH_INDEX_NAMES: Final = frozenset(
    {
        "job_search",
        "job_search_data",
        "job_search_idx",
        "job_search_config",
        "job_documents_by_age",
        "job_documents_by_text",
    }
)

#: The one of them that a PostgreSQL may not allow.
OPTIONAL_INDEX: Final = "job_documents_by_text"

# No positions are kept, they would double the size: the text itself tells whether the runs make up the word.
_SQLITE: Final = (
    "CREATE VIRTUAL TABLE job_search USING fts5("
    "document, content='job_documents', content_rowid='number', "
    "tokenize='trigram case_sensitive 1', detail='none', columnsize=0)"
)
_BY_AGE: Final = "CREATE INDEX job_documents_by_age ON job_documents (created_at, job_id)"
_TRIGRAMS: Final = "CREATE EXTENSION IF NOT EXISTS pg_trgm"
_BY_TEXT: Final = "CREATE INDEX job_documents_by_text ON job_documents USING gin (document gin_trgm_ops)"


def make_search_index(connection: Connection) -> None:
    """Make the index beside a new table ``job_documents``; where that is not allowed, log what to do."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_SQLITE)
        return
    connection.exec_driver_sql(_BY_AGE)
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(_TRIGRAMS)
            connection.exec_driver_sql(_BY_TEXT)
    except DBAPIError as error:
        logger.warning(
            "Searches will be slow and give partial pages: this PostgreSQL does not allow the extension pg_trgm (%s). "
            "Let a superuser run: %s; %s;",
            str(error.orig).partition("\n")[0],
            _TRIGRAMS,
            _BY_TEXT,
        )


def has_word_index(connection: Connection) -> bool:
    """Whether a PostgreSQL ledger has the index of words."""
    return connection.scalar(select(func.to_regclass("job_documents_by_text"))) is not None
