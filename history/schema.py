"""The ledger's tables, as they are in the newest version; ``migrations`` leads there from every older one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    event,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect

from .search_index import make_search_index

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class UtcMicroseconds(TypeDecorator[datetime]):
    """An aware moment, kept as whole microseconds since 1970 in UTC: exact, sortable, the same everywhere."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Return the microseconds; a naive time is an error."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Return the moment, in UTC."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class CompactJson(TypeDecorator[Any]):
    """Lists and maps that no query looks into."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Return the JSON text."""
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Return what the JSON text says, in Python's own types."""
        return None if value is None else msgspec.json.decode(value)


#: Ids sort by their bytes in every database, so that a page's order is the same everywhere.
Identifier = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
#: SQLite numbers rows by itself only in a column of exactly this type.
Sequence = BigInteger().with_variant(Integer(), "sqlite")

METADATA = MetaData()

#: One row for each job: the fold of its events.
jobs = Table(
    "jobs",
    METADATA,
    Column("job_id", Identifier, primary_key=True),
    Column("created_at", UtcMicroseconds, nullable=False),
    # Derived from the rest by JobHistoryEntry, for filters.
    Column("status", Text, nullable=False),
    Column("worker_id", Text),
    Column("completed_at", UtcMicroseconds),
    Column("failure_group", Text),
    # JobFacts; all of them mean nothing while facts_rank is -1.
    Column("facts_rank", Integer, nullable=False),
    Column("task", Text),
    Column("queue", Text),
    Column("priority", BigInteger),
    Column("payload_summary", Text),
    Column("tags", CompactJson),
    Column("metadata", CompactJson),
    Column("group_id", Text),
    Column("retry_of", Text),
    Column("root_id", Text),
    Column("overrides", Text),
    Column("cancel_grace", Double),
    Column("snapshot_problem", Text),
    # The attempts and the latest run.
    Column("requeue", BigInteger, nullable=False),
    Column("retries", BigInteger, nullable=False),
    Column("handed_over", Boolean, nullable=False),
    Column("started_at", UtcMicroseconds),
    Column("attempt_started", Boolean, nullable=False),
    Column("run_id", Text),
    Column("run_worker_id", Text),
    Column("run_boot_id", Text),
    Column("next_attempt_at", UtcMicroseconds),
    Column("retry_error", Text),
    Column("retry_error_requeue", BigInteger),
    Column("retry_error_retries", BigInteger),
    Column("published", Boolean, nullable=False),
    Column("uncertain", Boolean, nullable=False),
    # JobEnd: the strongest end so far; all of them mean nothing while end_status is null.
    Column("end_status", Text),
    Column("end_at", UtcMicroseconds),
    Column("end_requeue", BigInteger),
    Column("end_retries", BigInteger),
    Column("end_evidence", Integer),
    Column("end_run_id", Text),
    Column("end_worker_id", Text),
    Column("end_detail", Text),
    Column("end_failure_kind", Text),
    Column("end_error_type", Text),
    Column("end_error_message", Text),
    Column("end_traceback", Text),
    Column("end_result_ref", Text),
    Column("end_runtime", Double),
    Column("end_provisional", Boolean),
    Column("cancel_requested_at", UtcMicroseconds),
    Column("cancel_actor", Text),
    Column("cancel_reason", Text),
    Column("cancel_delivered_at", UtcMicroseconds),
    Column("cancel_obstacle", Text),
    Column("progress_done", Double),
    Column("progress_total", Double),
    Column("progress_text", Text),
    Column("progress_at", UtcMicroseconds),
)
# Each way to ask for jobs has one index that ends in a list's order. Those with the status inside also serve a
# question without it: as five short ranges, merged.
Index("jobs_by_age", jobs.c.created_at, jobs.c.job_id)
Index("jobs_by_status", jobs.c.status, jobs.c.created_at, jobs.c.job_id)
Index("jobs_by_task", jobs.c.task, jobs.c.status, jobs.c.created_at, jobs.c.job_id)
Index("jobs_by_queue", jobs.c.queue, jobs.c.status, jobs.c.created_at, jobs.c.job_id)


def _index_of_known(name: str, column: str, *more: str) -> None:
    """Few jobs have the column at all: those without it cost nothing."""
    known = jobs.c[column].is_not(None)
    columns = [jobs.c[each] for each in (column, *more, "created_at", "job_id")]
    Index(name, *columns, sqlite_where=known, postgresql_where=known)


_index_of_known("jobs_by_worker", "worker_id", "status")
_index_of_known("jobs_by_group", "group_id", "status")
_index_of_known("jobs_by_family", "root_id")
_index_of_known("jobs_by_failure", "failure_group")

UNFINISHED = jobs.c.completed_at.is_(None)
ON_A_NODE = UNFINISHED & jobs.c.run_boot_id.is_not(None)
Index(
    "jobs_on_nodes",
    jobs.c.created_at,
    jobs.c.job_id,
    sqlite_where=ON_A_NODE,
    postgresql_where=ON_A_NODE,
)
BEING_CANCELLED = UNFINISHED & jobs.c.cancel_requested_at.is_not(None)
Index(
    "jobs_being_cancelled",
    jobs.c.cancel_requested_at,
    jobs.c.job_id,
    sqlite_where=BEING_CANCELLED,
    postgresql_where=BEING_CANCELLED,
)

#: What happened, in the order of recording; append-only, see the triggers below.
job_events = Table(
    "job_events",
    METADATA,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("job_id", Identifier, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", UtcMicroseconds, nullable=False),
    Column("recorded_at", UtcMicroseconds, nullable=False),
    Column("event", Text, nullable=False),
    sqlite_autoincrement=True,
)
Index("job_events_by_job", job_events.c.job_id, job_events.c.seq)

#: The sealed message bodies; no list ever reads them.
job_snapshots = Table(
    "job_snapshots",
    METADATA,
    Column("job_id", Identifier, ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("rank", Integer, nullable=False),
    Column("sealed", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("key_fingerprint", Text, nullable=False),
)

#: The newest lines that each job logged.
job_log = Table(
    "job_log",
    METADATA,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("job_id", Identifier, ForeignKey("jobs.job_id", ondelete="CASCADE"), nullable=False),
    Column("recorded_at", UtcMicroseconds, nullable=False),
    Column("event", Text, nullable=False),
    sqlite_autoincrement=True,
)
Index("job_log_by_job", job_log.c.job_id, job_log.c.seq)

#: The rows that say "this job must not go on".
cancel_intents = Table(
    "cancel_intents",
    METADATA,
    Column("job_id", Identifier, ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("requested_at", UtcMicroseconds, nullable=False),
    Column("actor", Text),
    Column("reason", Text),
)
Index("cancel_intents_by_age", cancel_intents.c.requested_at, cancel_intents.c.job_id)

#: The jobs of each tag (its name is empty) and of each item of metadata, in a list's order.
job_labels = Table(
    "job_labels",
    METADATA,
    Column("name", Identifier, primary_key=True),
    Column("value", Identifier, primary_key=True),
    Column("status", Identifier, primary_key=True),
    Column("created_at", UtcMicroseconds, primary_key=True, autoincrement=False),
    Column("job_id", Identifier, primary_key=True),
    sqlite_with_rowid=False,
)

#: Sums over all jobs, see ``sums``; each is spread over a few shards, so that no two writers wait for one row.
totals = Table(
    "totals",
    METADATA,
    Column("name", Identifier, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
job_statistics = Table(
    "job_statistics",
    METADATA,
    # How many minutes the count is of (see sums.SPANS), and the first of them.
    Column("span", Integer, primary_key=True, autoincrement=False),
    Column("measure", Identifier, primary_key=True),
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("task", Identifier, primary_key=True),
    Column("queue", Identifier, primary_key=True),
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
failure_groups = Table(
    "failure_groups",
    METADATA,
    Column("fingerprint", Identifier, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("error_type", Text, nullable=False),
    Column("pattern", Text, nullable=False),
    Column("frame", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("first_seen_at", UtcMicroseconds, nullable=False),
    Column("last_seen_at", UtcMicroseconds, nullable=False),
    Column("example_job_id", Text, nullable=False),
)
Index("failure_groups_by_age", failure_groups.c.last_seen_at, failure_groups.c.fingerprint)

#: The jobs that retention removed lately: what comes in about them is dropped.
pruned_jobs = Table(
    "pruned_jobs",
    METADATA,
    Column("job_id", Identifier, primary_key=True),
    Column("removed_at", UtcMicroseconds, nullable=False),
)
Index("pruned_jobs_by_age", pruned_jobs.c.removed_at)

#: What searches look at: each job's text, in lower case. Its index is made aside, see ``search_index``.
job_documents = Table(
    "job_documents",
    METADATA,
    # SQLite's index gives jobs in the order of this number, which therefore follows their age; see sql_documents.
    Column("number", Sequence, primary_key=True, autoincrement=True),
    Column("job_id", Identifier, nullable=False),
    Column("created_at", UtcMicroseconds, nullable=False),
    Column("document", Text, nullable=False),
)
Index("job_documents_by_job", job_documents.c.job_id, unique=True)
#: The jobs whose text has changed since somebody wrote their documents, each as often as that happened.
search_pending = Table(
    "search_pending",
    METADATA,
    Column("number", Sequence, primary_key=True, autoincrement=True),
    Column("job_id", Identifier, nullable=False),
)

#: Up to which byte each journal is recorded, and how many events its writer could not write.
journals = Table(
    "journals",
    METADATA,
    Column("name", Identifier, primary_key=True),
    Column("offset", BigInteger, nullable=False),
    Column("dropped", BigInteger, nullable=False),
    Column("updated_at", UtcMicroseconds, nullable=False),
    # When its file was deleted, all of it recorded; until then the row must stay.
    Column("ended_at", UtcMicroseconds),
)

#: Journal lines that nobody can read, with the reason.
poison_lines = Table(
    "poison_lines",
    METADATA,
    Column("journal", Identifier, primary_key=True),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("line", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("recorded_at", UtcMicroseconds, nullable=False),
)

#: Worker nodes, one row for each boot.
nodes = Table(
    "nodes",
    METADATA,
    Column("boot_id", Identifier, primary_key=True),
    Column("name", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("home", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("pool", Text, nullable=False),
    Column("concurrency", BigInteger, nullable=False),
    Column("queues", CompactJson, nullable=False),
    Column("versions", CompactJson, nullable=False),
    Column("started_at", UtcMicroseconds, nullable=False),
    Column("heartbeat", BigInteger, nullable=False),
    Column("heartbeat_at", UtcMicroseconds),
    Column("ended_at", UtcMicroseconds),
    Column("ended_how", Text),
)

#: Who may act alone, until when, by the ledger's own clock; the fencing number only rises.
leases = Table(
    "leases",
    METADATA,
    Column("name", Identifier, primary_key=True),
    Column("holder", Text),
    Column("fence", BigInteger, nullable=False),
    Column("expires_at", UtcMicroseconds, nullable=False),
)

# Events go only after their job's own row is gone: that is how retention removes a job. Nothing else touches them.
_APPEND_ONLY_SQLITE = (
    """
CREATE TRIGGER job_events_are_never_changed BEFORE UPDATE ON job_events
BEGIN SELECT RAISE(ABORT, 'job_events is append-only'); END
""",
    """
CREATE TRIGGER job_events_stay_with_their_job BEFORE DELETE ON job_events
WHEN EXISTS (SELECT 1 FROM jobs WHERE job_id = OLD.job_id)
BEGIN SELECT RAISE(ABORT, 'job_events is append-only'); END
""",
)
_APPEND_ONLY_POSTGRESQL = (
    """
CREATE FUNCTION refuse_job_events_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF NOT EXISTS (SELECT 1 FROM jobs WHERE job_id = OLD.job_id) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'job_events is append-only';
END
$$
""",
    """
CREATE TRIGGER job_events_are_append_only BEFORE UPDATE OR DELETE ON job_events
FOR EACH ROW EXECUTE FUNCTION refuse_job_events_change()
""",
    """
CREATE TRIGGER job_events_are_never_emptied BEFORE TRUNCATE ON job_events
FOR EACH STATEMENT EXECUTE FUNCTION refuse_job_events_change()
""",
)


@event.listens_for(METADATA, "after_create")
def _make_job_events_append_only(_: MetaData, connection: Connection, **_options: object) -> None:
    sqlite = connection.dialect.name == "sqlite"
    for statement in _APPEND_ONLY_SQLITE if sqlite else _APPEND_ONLY_POSTGRESQL:
        connection.exec_driver_sql(statement)


@event.listens_for(job_documents, "after_create")
def _make_search_index(_: Table, connection: Connection, **_options: object) -> None:
    make_search_index(connection)
