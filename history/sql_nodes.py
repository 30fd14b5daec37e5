"""The worker nodes and the leases of a ledger."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, false, func, select, update

from .event import now
from .job import JobHistoryEntry
from .job_history_store import LeaseHold
from .job_row import entry_of
from .node import Node, NodeEnd
from .schema import ON_A_NODE, jobs, leases, nodes
from .sql_statements import insert_unless_there, select_listed, upsert


def record_node(connection: Connection, node: Node) -> None:
    """Record a boot; one of the same id is replaced."""
    row = msgspec.structs.asdict(node) | {"ended_how": node.ended_how.value if node.ended_how else None}
    connection.execute(upsert(connection.dialect.name, nodes), row)


def record_heartbeats(connection: Connection, boot_ids: Collection[str], at: datetime) -> None:
    """Count the heartbeat of every named boot up by one."""
    if not boot_ids:
        return
    counted = update(nodes).values(heartbeat=nodes.c.heartbeat + 1, heartbeat_at=at)
    beats = [{"beating": boot_id} for boot_id in sorted(set(boot_ids))]
    connection.execute(counted.where(nodes.c.boot_id == bindparam("beating")), beats)


def end_node(connection: Connection, boot_id: str, how: NodeEnd, at: datetime) -> None:
    """Record the boot's end, if it has none yet."""
    living = (nodes.c.boot_id == boot_id) & nodes.c.ended_at.is_(None)
    connection.execute(update(nodes).where(living).values(ended_at=at, ended_how=how.value))


def ended_boots(connection: Connection, boot_ids: Collection[str]) -> set[str]:
    """Return which of the boots have ended."""
    query, parameters = select_listed(connection, nodes, "boot_id", boot_ids)
    return {row.boot_id for row in connection.execute(query, parameters) if row.ended_at is not None}


def list_nodes(connection: Connection, *, include_ended: bool) -> list[Node]:
    """Return the boots, newest first."""
    query = select(nodes).order_by(nodes.c.started_at.desc(), nodes.c.boot_id.desc())
    rows = connection.execute(query if include_ended else query.where(nodes.c.ended_at.is_(None))).mappings()
    return [_node_of(row) for row in rows]


def list_jobs_of_ended_nodes(connection: Connection, limit: int) -> list[JobHistoryEntry]:
    """Return unfinished jobs whose latest run was on a boot that has ended, oldest first."""
    query = (
        select(jobs)
        .join(nodes, nodes.c.boot_id == jobs.c.run_boot_id)
        .where(ON_A_NODE, nodes.c.ended_at.is_not(None))
        .order_by(jobs.c.created_at, jobs.c.job_id)
        .limit(limit)
    )
    return [entry_of(row) for row in connection.execute(query).mappings()]


def acquire_lease(connection: Connection, name: str, holder: str, seconds: float) -> int | None:
    """Take or renew the lease; return its fencing number, or ``None`` while somebody else holds it."""
    free = {"name": name, "holder": None, "fence": 0, "expires_at": now()}
    connection.execute(insert_unless_there(connection.dialect.name, leases), free)
    lease = connection.execute(select(leases).where(leases.c.name == name).with_for_update()).one()
    moment = _ledger_time(connection)
    if lease.holder not in {None, holder} and lease.expires_at > moment:
        return None
    fence: int = lease.fence + (lease.holder != holder)
    taken = {"holder": holder, "fence": fence, "expires_at": moment + timedelta(seconds=seconds)}
    connection.execute(update(leases).where(leases.c.name == name).values(**taken))
    return fence


def holds_lease(connection: Connection, lease: LeaseHold) -> bool:
    """Whether the number is still the lease's newest; it stays so until the transaction ends."""
    query = select(leases.c.fence).where(leases.c.name == lease.name).with_for_update()
    return connection.execute(query).scalar_one_or_none() == lease.fence


def lease_holder(connection: Connection, name: str) -> str | None:
    """Return who holds the lease now."""
    unexpired = (leases.c.name == name) & (leases.c.expires_at > _ledger_time(connection))
    holder: str | None = connection.execute(select(leases.c.holder).where(unexpired)).scalar_one_or_none()
    return holder


def lease_left(connection: Connection, name: str) -> float | None:
    """Return for how many more seconds the lease is held; ``None`` when it is free."""
    moment = _ledger_time(connection)
    held = (leases.c.name == name) & leases.c.holder.is_not(None) & (leases.c.expires_at > moment)
    until: datetime | None = connection.execute(select(leases.c.expires_at).where(held)).scalar_one_or_none()
    return None if until is None else (until - moment).total_seconds()


def touch_leases(connection: Connection) -> None:
    """Change nothing, by a statement that only somebody who may write can run."""
    connection.execute(update(leases).where(false()).values(fence=leases.c.fence))


def release_lease(connection: Connection, name: str, holder: str) -> None:
    """Give the lease back, if the holder has it; its number stays, so that the next one is greater."""
    held = (leases.c.name == name) & (leases.c.holder == holder)
    connection.execute(update(leases).where(held).values(holder=None))


def _node_of(row: RowMapping) -> Node:
    values: dict[str, Any] = dict(row)
    values["queues"] = tuple(values["queues"])
    values["ended_how"] = NodeEnd(values["ended_how"]) if values["ended_how"] else None
    return Node(**values)


def _ledger_time(connection: Connection) -> datetime:
    # Holders on several hosts must not compare their own clocks; an SQLite ledger has only one host.
    if connection.dialect.name == "sqlite":
        return now()
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment
