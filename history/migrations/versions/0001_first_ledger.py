"""The first ledger."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

IDENTIFIER = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SQLITE_TRIGGERS = (
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
POSTGRESQL_TRIGGERS = (
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


def upgrade() -> None:
    """Make every table, index and trigger."""
    _make_jobs()
    _make_job_events()
    _make_job_snapshots()
    _make_job_log()
    _make_cancel_intents()
    _make_journals()
    _make_poison_lines()
    _make_nodes()
    _make_leases()
    _make_job_events_append_only()


def _make_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", IDENTIFIER, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("worker_id", sa.Text()),
        sa.Column("completed_at", sa.BigInteger()),
        sa.Column("facts_rank", sa.Integer(), nullable=False),
        sa.Column("task", sa.Text()),
        sa.Column("queue", sa.Text()),
        sa.Column("priority", sa.BigInteger()),
        sa.Column("payload_summary", sa.Text()),
        sa.Column("tags", sa.Text()),
        sa.Column("group_id", sa.Text()),
        sa.Column("retry_of", sa.Text()),
        sa.Column("root_id", sa.Text()),
        sa.Column("overrides", sa.Text()),
        sa.Column("cancel_grace", sa.Double()),
        sa.Column("snapshot_problem", sa.Text()),
        sa.Column("requeue", sa.BigInteger(), nullable=False),
        sa.Column("retries", sa.BigInteger(), nullable=False),
        sa.Column("handed_over", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("attempt_started", sa.Boolean(), nullable=False),
        sa.Column("run_id", sa.Text()),
        sa.Column("run_worker_id", sa.Text()),
        sa.Column("run_boot_id", sa.Text()),
        sa.Column("next_attempt_at", sa.BigInteger()),
        sa.Column("retry_error", sa.Text()),
        sa.Column("retry_error_requeue", sa.BigInteger()),
        sa.Column("retry_error_retries", sa.BigInteger()),
        sa.Column("published", sa.Boolean(), nullable=False),
        sa.Column("uncertain", sa.Boolean(), nullable=False),
        sa.Column("end_status", sa.Text()),
        sa.Column("end_at", sa.BigInteger()),
        sa.Column("end_requeue", sa.BigInteger()),
        sa.Column("end_retries", sa.BigInteger()),
        sa.Column("end_evidence", sa.Integer()),
        sa.Column("end_run_id", sa.Text()),
        sa.Column("end_worker_id", sa.Text()),
        sa.Column("end_detail", sa.Text()),
        sa.Column("end_failure_kind", sa.Text()),
        sa.Column("end_error_type", sa.Text()),
        sa.Column("end_error_message", sa.Text()),
        sa.Column("end_traceback", sa.Text()),
        sa.Column("end_result_ref", sa.Text()),
        sa.Column("end_runtime", sa.Double()),
        sa.Column("end_provisional", sa.Boolean()),
        sa.Column("cancel_requested_at", sa.BigInteger()),
        sa.Column("cancel_actor", sa.Text()),
        sa.Column("cancel_reason", sa.Text()),
        sa.Column("cancel_delivered_at", sa.BigInteger()),
        sa.Column("cancel_obstacle", sa.Text()),
        sa.Column("progress_done", sa.Double()),
        sa.Column("progress_total", sa.Double()),
        sa.Column("progress_text", sa.Text()),
        sa.Column("progress_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index(
        "jobs_being_cancelled",
        "jobs",
        ["cancel_requested_at", "job_id"],
        sqlite_where=sa.text("completed_at IS NULL AND cancel_requested_at IS NOT NULL"),
        postgresql_where=sa.text("completed_at IS NULL AND cancel_requested_at IS NOT NULL"),
    )
    op.create_index("jobs_by_age", "jobs", ["created_at", "job_id"])
    op.create_index("jobs_by_queue", "jobs", ["queue", "created_at", "job_id"])
    op.create_index("jobs_by_status", "jobs", ["status", "created_at", "job_id"])
    op.create_index("jobs_by_task", "jobs", ["task", "created_at", "job_id"])
    op.create_index(
        "jobs_on_nodes",
        "jobs",
        ["created_at", "job_id"],
        sqlite_where=sa.text("completed_at IS NULL AND run_boot_id IS NOT NULL"),
        postgresql_where=sa.text("completed_at IS NULL AND run_boot_id IS NOT NULL"),
    )


def _make_job_events() -> None:
    op.create_table(
        "job_events",
        sa.Column("seq", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("job_id", IDENTIFIER, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("job_events_by_job", "job_events", ["job_id", "seq"])


def _make_job_snapshots() -> None:
    op.create_table(
        "job_snapshots",
        sa.Column("job_id", IDENTIFIER, nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("key_fingerprint", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id"),
    )


def _make_job_log() -> None:
    op.create_table(
        "job_log",
        sa.Column("seq", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("job_id", IDENTIFIER, nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("job_log_by_job", "job_log", ["job_id", "seq"])


def _make_cancel_intents() -> None:
    op.create_table(
        "cancel_intents",
        sa.Column("job_id", IDENTIFIER, nullable=False),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index("cancel_intents_by_age", "cancel_intents", ["requested_at", "job_id"])


def _make_journals() -> None:
    op.create_table(
        "journals",
        sa.Column("name", IDENTIFIER, nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _make_poison_lines() -> None:
    op.create_table(
        "poison_lines",
        sa.Column("journal", IDENTIFIER, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("line", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("journal", "offset"),
    )


def _make_nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("boot_id", IDENTIFIER, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("home", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("concurrency", sa.BigInteger(), nullable=False),
        sa.Column("queues", sa.Text(), nullable=False),
        sa.Column("versions", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_at", sa.BigInteger()),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("ended_how", sa.Text()),
        sa.PrimaryKeyConstraint("boot_id"),
    )


def _make_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("name", IDENTIFIER, nullable=False),
        sa.Column("holder", sa.Text()),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _make_job_events_append_only() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in SQLITE_TRIGGERS if sqlite else POSTGRESQL_TRIGGERS:
        op.execute(statement)
