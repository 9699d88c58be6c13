"""What queries answer with: sandboxes and executions as plain values. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nexus.domain.values import Operation, SandboxState, StopReason, from_text, to_text
from nexus.projections.inline import Sandboxes

if TYPE_CHECKING:
    from nexus.domain.sandbox import Sandbox


def _moment(text: str | None) -> datetime | None:
    return None if text is None else from_text(text)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else to_text(moment)


def _minutes(seconds: int) -> int | float:
    """Whole minutes as a whole number, as callers gave them."""
    return seconds // 60 if seconds % 60 == 0 else seconds / 60


@dataclass(frozen=True, slots=True)
class PendingView:
    """An operation in flight."""

    operation: Operation
    attempt: int
    deadline: datetime
    holder: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "operation": self.operation.value,
            "attempt": self.attempt,
            "deadline": to_text(self.deadline),
            "holder": self.holder,
        }


@dataclass(frozen=True, slots=True)
class SandboxView:
    """One sandbox as the read model has it. Times are aware and UTC, durations are seconds."""

    sandbox_id: str
    version: int
    name: str
    status: SandboxState
    provider: str
    template_id: str | None
    user_id: str
    agent_id: str | None
    tenant_id: str
    network: str
    ttl_seconds: int
    max_age_seconds: int
    created_at: datetime
    started_at: datetime | None
    last_active_at: datetime | None
    paused_at: datetime | None
    stopped_at: datetime | None
    stop_reason: StopReason | None
    expires_at: datetime | None
    remaining_seconds: float | None
    """What is left of the time to live while paused."""
    pending: PendingView | None
    last_error: str | None
    runs: int
    open_executions: int
    generation: int
    incarnation: str
    ref: Mapping[str, Any] | None
    limits: Mapping[str, int | float | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    env_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    capture: bool = False
    """Whether code and output of its runs are kept."""

    @classmethod
    def of(cls, state: Sandbox) -> SandboxView:
        """Of a folded state: equal to what the read model holds at this version."""
        return cls.from_row({"sandbox_id": state.sandbox_id, **Sandboxes.values(state)})

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> SandboxView:
        """From a row of the `sandboxes` table."""
        pending = None
        if row["pending_operation"] is not None:
            pending = PendingView(
                operation=Operation(row["pending_operation"]),
                attempt=row["pending_attempt"],
                deadline=from_text(row["pending_deadline"]),
                holder=row["pending_holder"],
            )
        return cls(
            sandbox_id=row["sandbox_id"],
            version=row["version"],
            name=row["name"],
            status=SandboxState(row["status"]),
            provider=row["provider"],
            template_id=row["template_id"],
            user_id=row["user_id"],
            agent_id=row["agent_id"],
            tenant_id=row["tenant_id"],
            network=row["network"],
            ttl_seconds=row["ttl_seconds"],
            max_age_seconds=row["max_age_seconds"],
            created_at=from_text(row["created_at"]),
            started_at=_moment(row["started_at"]),
            last_active_at=_moment(row["last_active_at"]),
            paused_at=_moment(row["paused_at"]),
            stopped_at=_moment(row["stopped_at"]),
            stop_reason=None if row["stop_reason"] is None else StopReason(row["stop_reason"]),
            expires_at=_moment(row["expires_at"]),
            remaining_seconds=row["remaining_seconds"],
            pending=pending,
            last_error=row["last_error"],
            runs=row["runs"],
            open_executions=row["open_executions"],
            generation=row["generation"],
            incarnation=row["incarnation"],
            ref=None if row["ref"] is None else json.loads(row["ref"]),
            limits=json.loads(row["limits"]),
            labels=json.loads(row["labels"]),
            env_names=tuple(json.loads(row["env_names"])),
            notes=tuple(json.loads(row["notes"])),
            capture=bool(row["capture"]),
        )

    def uptime(self, now: datetime) -> float:
        """Seconds since it came up; it stops counting at the stop, and is 0 for one that never came up."""
        if self.started_at is None:
            return 0.0
        return max(0.0, ((self.stopped_at or now) - self.started_at).total_seconds())

    def to_dict(self, now: datetime) -> dict[str, Any]:
        """The facade's frozen set of keys; times as ISO 8601 with offset."""
        return {
            "sandbox_id": self.sandbox_id,
            "name": self.name,
            "status": self.status.value,
            "provider": self.provider,
            "template_id": self.template_id,
            "user_id": self.user_id,
            "agent_id": self.agent_id,
            "tenant_id": self.tenant_id,
            "created_at": to_text(self.created_at),
            "last_active_at": _text(self.last_active_at),
            "paused_at": _text(self.paused_at),
            "stopped_at": _text(self.stopped_at),
            "ttl_minutes": _minutes(self.ttl_seconds),
            "expires_at": _text(self.expires_at),
            "uptime_seconds": round(self.uptime(now), 3),
            "stop_reason": None if self.stop_reason is None else self.stop_reason.value,
        }

    def details(self, now: datetime) -> dict[str, Any]:
        """Everything: `to_dict` and what a status page shows beside it."""
        return {
            **self.to_dict(now),
            "version": self.version,
            "started_at": _text(self.started_at),
            "remaining_seconds": self.remaining_seconds,
            "max_age_seconds": self.max_age_seconds,
            "network": self.network,
            "limits": dict(self.limits),
            "labels": dict(self.labels),
            "env_names": list(self.env_names),
            "capture": self.capture,
            "notes": list(self.notes),
            "pending": None if self.pending is None else self.pending.to_dict(),
            "last_error": self.last_error,
            "runs": self.runs,
            "open_executions": self.open_executions,
            "generation": self.generation,
            "incarnation": self.incarnation,
            "ref": None if self.ref is None else dict(self.ref),
        }


@dataclass(frozen=True, slots=True)
class ExecutionView:
    """One run of code. `status` is running, finished, timed_out or lost."""

    execution_id: str
    sandbox_id: str
    tenant_id: str
    actor: str
    agent_id: str | None
    status: str
    language: str
    code_sha256: str
    code_bytes: int
    timeout: int
    started_at: datetime
    finished_at: datetime | None
    duration: float | None
    exit_code: int | None
    signal: int | None
    oom_killed: bool
    stdout_bytes: int | None
    stderr_bytes: int | None
    truncated: bool
    reason: str | None
    """Why a lost one counts as lost."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ExecutionView:
        """From a row of the `executions` table."""
        return cls(
            execution_id=row["execution_id"],
            sandbox_id=row["sandbox_id"],
            tenant_id=row["tenant_id"],
            actor=row["actor"],
            agent_id=row["agent_id"],
            status=row["status"],
            language=row["language"],
            code_sha256=row["code_sha256"],
            code_bytes=row["code_bytes"],
            timeout=row["timeout"],
            started_at=from_text(row["started_at"]),
            finished_at=_moment(row["finished_at"]),
            duration=row["duration"],
            exit_code=row["exit_code"],
            signal=row["signal"],
            oom_killed=bool(row["oom_killed"]),
            stdout_bytes=row["stdout_bytes"],
            stderr_bytes=row["stderr_bytes"],
            truncated=bool(row["truncated"]),
            reason=row["reason"],
        )

    def to_dict(self) -> dict[str, Any]:
        """Its attributes, times as ISO 8601 with offset."""
        return {
            "execution_id": self.execution_id,
            "sandbox_id": self.sandbox_id,
            "actor": self.actor,
            "agent_id": self.agent_id,
            "status": self.status,
            "language": self.language,
            "code_sha256": self.code_sha256,
            "code_bytes": self.code_bytes,
            "timeout": self.timeout,
            "started_at": to_text(self.started_at),
            "finished_at": _text(self.finished_at),
            "duration": self.duration,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "oom_killed": self.oom_killed,
            "stdout_bytes": self.stdout_bytes,
            "stderr_bytes": self.stderr_bytes,
            "truncated": self.truncated,
            "reason": self.reason,
        }
