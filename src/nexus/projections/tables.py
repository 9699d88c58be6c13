"""The tables of every read model. A change of any of them is a new `version` of its projection. Standard library only.

Times are text as `nexus.domain.values.to_text` writes it, so that text sorts as time does; durations are seconds;
what has structure of its own is JSON text.
"""

from __future__ import annotations

from typing import Final

from nexus.domain.ports import Table

SANDBOXES: Final = Table(
    "sandboxes",
    {
        "sandbox_id": "text",
        "version": "integer",
        "name": "text",
        "status": "text",
        "provider": "text",
        "template_id": "text",
        "user_id": "text",
        "agent_id": "text",
        "tenant_id": "text",
        "network": "text",
        "limits": "text",
        "labels": "text",
        "env_names": "text",
        "ttl_seconds": "integer",
        "max_age_seconds": "integer",
        "created_at": "text",
        "started_at": "text",
        "last_active_at": "text",
        "paused_at": "text",
        "stopped_at": "text",
        "stop_reason": "text",
        "expires_at": "text",
        "remaining_seconds": "real",
        "notes": "text",
        "pending_operation": "text",
        "pending_attempt": "integer",
        "pending_deadline": "text",
        "pending_holder": "text",
        "last_error": "text",
        "runs": "integer",
        "open_executions": "integer",
        "generation": "integer",
        "ref": "text",
        "incarnation": "text",
        "capture": "integer",
    },
    key=("sandbox_id",),
    # Columns that the first event fixes for good: only a create touches these indexes.
    indexes=(
        ("tenant_id", "user_id", "name", "created_at"),
        ("tenant_id", "user_id", "created_at"),
        ("tenant_id", "name", "created_at"),
        ("tenant_id", "created_at"),
    ),
)

SANDBOX_LABELS: Final = Table(
    "sandbox_labels",
    {"sandbox_id": "text", "name": "text", "value": "text"},
    key=("sandbox_id", "name"),
    indexes=(("name", "value"),),
)

DUE: Final = Table(
    "due",
    {"sandbox_id": "text", "version": "integer", "due_at": "text", "in_flight": "integer"},
    key=("sandbox_id",),
    internal=True,
)
"""One row for every sandbox that is not stopped, so it is the list of the living, too. Read whole at each sweep: an
index on a column that nearly every event changes would cost each of them two entries instead of none."""

POOL_MEMBERS: Final = Table(
    "pool_members",
    {
        "member_id": "text",
        "version": "integer",
        "status": "text",
        "provider": "text",
        "place": "text",
        "template": "text",
        "slot": "integer",
        "kind": "text",
        "requested_at": "text",
        "ready_at": "text",
        "expires_at": "text",
        "deadline": "text",
        "holder": "text",
        "reason": "text",
        "detail": "text",
    },
    key=("member_id",),
)
"""One row for every resource that the warm pool has or may have: a few, so no index."""

EXECUTIONS: Final = Table(
    "executions",
    {
        "execution_id": "text",
        "sandbox_id": "text",
        "tenant_id": "text",
        "actor": "text",
        "agent_id": "text",
        "status": "text",
        "language": "text",
        "code_sha256": "text",
        "code_bytes": "integer",
        "timeout": "integer",
        "started_at": "text",
        "finished_at": "text",
        "duration": "real",
        "exit_code": "integer",
        "signal": "integer",
        "oom_killed": "integer",
        "stdout_bytes": "integer",
        "stderr_bytes": "integer",
        "stdout_sha256": "text",
        "stderr_sha256": "text",
        "truncated": "integer",
        "reason": "text",
    },
    key=("execution_id", "sandbox_id"),
    indexes=(("sandbox_id", "started_at"),),
)

QUARANTINE: Final = Table(
    "quarantine",
    {
        "projection": "text",
        "originator_id": "text",
        "position": "integer",
        "topic": "text",
        "schema_version": "integer",
        "error": "text",
    },
    key=("projection", "originator_id"),
)
"""Aggregates that a projection leaves alone from `position` on, because of an event there that it could not take."""

SKIPPED: Final = Table(
    "skipped",
    {
        "projection": "text",
        "position": "integer",
        "originator_id": "text",
        "topic": "text",
        "error": "text",
        "actor": "text",
        "at": "text",
    },
    key=("projection", "position"),
)
"""Events that an operator had a projection (by name) pass over, until it is rebuilt: which, why, who, and when."""

SEALS: Final = Table(
    "seals",
    {
        "position": "integer",
        "count": "integer",
        "chain": "text",
        "sealed_at": "text",
        "positions": "text",
        "event_ids": "text",
        "leaves": "text",
    },
    key=("position",),
)
"""What the audit sealer saw, a page of events in each row: where it ends, how many events were sealed by then, and the
chain's head; of each of its events the position and the id (JSON), and the hash (hexadecimal, one after the other)."""

TABLES: Final = (SANDBOXES, SANDBOX_LABELS, DUE, POOL_MEMBERS, EXECUTIONS, QUARANTINE, SKIPPED, SEALS)
"""All of them, for a store to make when it makes its own."""
