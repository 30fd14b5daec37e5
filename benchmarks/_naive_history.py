"""The peer: the history that everybody writes first, by SQLAlchemy's ORM, one transaction for each event."""

from __future__ import annotations

from datetime import datetime

from jobledger.history.event import EventKind, JobEvent
from sqlalchemy import JSON, BigInteger, DateTime, Index, Integer, create_engine, make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    """The metadata of the peer's tables."""


class NaiveJob(Base):
    """One job, its columns set by hand."""

    __tablename__ = "naive_jobs"
    job_id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]
    task: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    completed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    worker_id: Mapped[str | None]
    __table_args__ = (Index("naive_jobs_by_status", "status", "created_at"),)


class NaiveEvent(Base):
    """One event."""

    __tablename__ = "naive_events"
    seq: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    job_id: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    payload: Mapped[dict[str, str]] = mapped_column(JSON)


class NaiveHistory:
    """Owns its engine until ``close``."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self._engine = create_engine(parsed)
        Base.metadata.create_all(self._engine)

    def record(self, event: JobEvent) -> None:
        """Record one event and its job's row, and commit."""
        with Session(self._engine) as session, session.begin():
            payload = {"source": event.source, "boot_id": event.boot_id or "", "run_id": event.run_id or ""}
            session.add(NaiveEvent(job_id=event.job_id, kind=event.kind.value, at=event.at, payload=payload))
            job = session.get(NaiveJob, event.job_id)
            if job is None:
                job = NaiveJob(job_id=event.job_id, status="QUEUED", created_at=event.at)
                session.add(job)
            _apply(job, event)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _apply(job: NaiveJob, event: JobEvent) -> None:
    if event.facts is not None:
        job.task = event.facts.task
    if event.kind is EventKind.STARTED:
        job.status, job.started_at, job.worker_id = "RUNNING", event.at, event.worker_id
    if event.end is not None:
        job.status, job.completed_at = event.end.status.value, event.end.at
