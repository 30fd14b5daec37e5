"""More ways to ask for jobs; labels, sums over all jobs, failure groups."""

import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op
from jobledger.history.failure_group import FailureGroup, failure_group_of
from jobledger.history.job import FailureKind, JobEnd, JobFacts, JobHistoryEntry, JobStatus
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

logger = logging.getLogger("jobledger.history")

IDENTIFIER = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the tables and indexes, and fill what can be derived from older rows."""
    _add_columns()
    _make_indexes()
    _make_job_labels()
    _make_sums()
    _make_pruned_jobs()
    _make_job_documents()


def _add_columns() -> None:
    op.add_column("jobs", sa.Column("failure_group", sa.Text()))
    op.add_column("jobs", sa.Column("metadata", sa.Text()))


def _make_indexes() -> None:
    for name in ("jobs_by_task", "jobs_by_queue"):
        op.drop_index(name, "jobs")
    op.create_index("jobs_by_task", "jobs", ["task", "status", "created_at", "job_id"])
    op.create_index("jobs_by_queue", "jobs", ["queue", "status", "created_at", "job_id"])
    _make_index_of_known("jobs_by_worker", "worker_id", "status")
    _make_index_of_known("jobs_by_group", "group_id", "status")
    _make_index_of_known("jobs_by_family", "root_id")
    _make_index_of_known("jobs_by_failure", "failure_group")


def _make_index_of_known(name: str, column: str, *more: str) -> None:
    known = sa.text(f"{column} IS NOT NULL")
    op.create_index(name, "jobs", [column, *more, "created_at", "job_id"], sqlite_where=known, postgresql_where=known)


def _make_job_labels() -> None:
    op.create_table(
        "job_labels",
        sa.Column("name", IDENTIFIER, nullable=False),
        sa.Column("value", IDENTIFIER, nullable=False),
        sa.Column("status", IDENTIFIER, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("job_id", IDENTIFIER, nullable=False),
        sa.PrimaryKeyConstraint("name", "value", "status", "created_at", "job_id"),
        sqlite_with_rowid=False,
    )
    each = (
        "json_each(jobs.tags) AS tag" if _is_sqlite() else "jsonb_array_elements_text(jobs.tags::jsonb) AS tag(value)"
    )
    op.execute(
        "INSERT INTO job_labels (name, value, status, created_at, job_id) "  # noqa: S608 - two fixed texts
        f"SELECT DISTINCT '', tag.value, jobs.status, jobs.created_at, jobs.job_id FROM jobs, {each} "
        "WHERE jobs.tags IS NOT NULL"
    )


def _make_sums() -> None:
    op.create_table(
        "totals",
        sa.Column("name", IDENTIFIER, nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "shard"),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO totals (name, shard, count) SELECT status, 0, count(*) FROM jobs GROUP BY status")
    op.create_table(
        "job_statistics",
        sa.Column("span", sa.Integer(), nullable=False),
        sa.Column("measure", IDENTIFIER, nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("task", IDENTIFIER, nullable=False),
        sa.Column("queue", IDENTIFIER, nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("span", "measure", "minute", "task", "queue", "bucket", "shard"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "failure_groups",
        sa.Column("fingerprint", IDENTIFIER, nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("error_type", sa.Text(), nullable=False),
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("frame", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("first_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("example_job_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", "shard"),
    )
    op.create_index("failure_groups_by_age", "failure_groups", ["last_seen_at", "fingerprint"])
    _group_old_failures()


def _group_old_failures() -> None:
    """Else the end of an old failure would be taken off a count that it was never in."""
    tallies: dict[FailureGroup, list[Any]] = {}
    for rows in _old_failures():
        grouped = [(row, group) for row in rows if (group := _group_of(row)) is not None]
        op.get_bind().execute(_SET_GROUP, [{"job": row.job_id, "known": group.fingerprint} for row, group in grouped])
        for row, group in grouped:
            tally = tallies.setdefault(group, [0, row.end_at, row.end_at, row.job_id])
            tally[0] += 1
            tally[1] = min(tally[1], row.end_at)
            if row.end_at >= tally[2]:
                tally[2:] = row.end_at, row.job_id
    groups = [dict(zip(_GROUP_COLUMNS, (group[0], 0, *group[1:], *tallies[group]), strict=True)) for group in tallies]
    if groups:
        op.get_bind().execute(_ADD_GROUP, groups)


def _old_failures() -> Iterator[Sequence[sa.Row[Any]]]:
    place = {"created_at": -(2**63), "job_id": ""}
    while rows := op.get_bind().execute(_FAILURES, place).all():
        yield rows
        place = {"created_at": rows[-1].created_at, "job_id": rows[-1].job_id}


def _group_of(row: sa.Row[Any]) -> FailureGroup | None:
    end = JobEnd(
        status=JobStatus.FAILED,
        at=_SOME_TIME,
        failure_kind=FailureKind(row.end_failure_kind) if row.end_failure_kind else None,
        error_type=row.end_error_type,
        error_message=row.end_error_message,
        traceback=row.end_traceback,
    )
    facts = JobFacts(task=row.task) if row.task is not None else None
    return failure_group_of(JobHistoryEntry(job_id=row.job_id, created_at=_SOME_TIME, facts=facts, end=end))


_SOME_TIME = datetime(2000, 1, 1, tzinfo=UTC)
_FAILURES = sa.text(
    "SELECT job_id, created_at, task, end_at, end_failure_kind, end_error_type, end_error_message, end_traceback "
    "FROM jobs WHERE status = 'FAILED' AND (created_at, job_id) > (:created_at, :job_id) "
    "ORDER BY created_at, job_id LIMIT 500"
)
_SET_GROUP = sa.text("UPDATE jobs SET failure_group = :known WHERE job_id = :job")
_GROUP_COLUMNS = (
    "fingerprint",
    "shard",
    "error_type",
    "pattern",
    "frame",
    "count",
    "first_seen_at",
    "last_seen_at",
    "example_job_id",
)
_ADD_GROUP = sa.text(
    "INSERT INTO failure_groups (fingerprint, shard, error_type, pattern, frame, count, first_seen_at, last_seen_at, "
    "example_job_id) VALUES (:fingerprint, :shard, :error_type, :pattern, :frame, :count, :first_seen_at, "
    ":last_seen_at, :example_job_id)"
)


def _make_pruned_jobs() -> None:
    op.create_table(
        "pruned_jobs",
        sa.Column("job_id", IDENTIFIER, nullable=False),
        sa.Column("removed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index("pruned_jobs_by_age", "pruned_jobs", ["removed_at"])
    op.add_column("journals", sa.Column("ended_at", sa.BigInteger()))


def _make_job_documents() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "job_documents",
        sa.Column("number", number, autoincrement=True, nullable=False),
        sa.Column("job_id", IDENTIFIER, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("job_documents_by_job", "job_documents", ["job_id"], unique=True)
    _make_search_index()
    op.create_table(
        "search_pending",
        sa.Column("number", number, autoincrement=True, nullable=False),
        sa.Column("job_id", IDENTIFIER, nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    # Whoever records next writes the documents, the newest jobs' first.
    op.execute("INSERT INTO search_pending (job_id) SELECT job_id FROM jobs ORDER BY created_at DESC, job_id DESC")


def _make_search_index() -> None:
    if _is_sqlite():
        op.execute(
            "CREATE VIRTUAL TABLE job_search USING fts5("
            "document, content='job_documents', content_rowid='number', "
            "tokenize='trigram case_sensitive 1', detail='none', columnsize=0)"
        )
        return
    op.create_index("job_documents_by_age", "job_documents", ["created_at", "job_id"])
    try:
        with op.get_bind().begin_nested():
            op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            op.execute("CREATE INDEX job_documents_by_text ON job_documents USING gin (document gin_trgm_ops)")
    except sa.exc.DBAPIError as error:
        logger.warning(
            "Searches will be slow and give partial pages: this PostgreSQL does not allow the extension pg_trgm (%s).",
            str(error.orig).partition("\n")[0],
        )


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"
