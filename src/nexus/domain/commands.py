"""Commands as values: what callers ask for, and what the engine reports back about effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nexus.domain.provider import ExecutionResult
from nexus.domain.values import ErasureReason, StopReason


@dataclass(frozen=True, slots=True)
class Command:
    """Base of all commands."""


# --- asked for by a caller -----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSandbox(Command):
    sandbox_id: str
    name: str
    user_id: str
    tenant_id: str
    agent_id: str | None
    provider: str
    template_id: str | None
    ttl_seconds: int
    max_age_seconds: int
    network: str
    limits: Mapping[str, int | float | None]
    labels: Mapping[str, str]
    env_names: tuple[str, ...]
    deadline: datetime
    holder: str
    capture: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StartExecution(Command):
    execution_id: str
    language: str
    code_sha256: str
    code_bytes: int
    timeout: int
    lease_until: datetime
    holder: str
    session: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPause(Command):
    deadline: datetime
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestResume(Command):
    deadline: datetime
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendSandbox(Command):
    seconds: int
    """Live at least this long from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStop(Command):
    deadline: datetime
    holder: str
    reason: StopReason = StopReason.USER


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireSandbox(Command):
    """Stop for expiry: does nothing unless the time is up at this version and no run is inside its time-out."""

    deadline: datetime
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseBodies(Command):
    """Whoever gives it has looked that there is something to erase, and erases it in the same append."""

    reason: ErasureReason
    executions: int
    kept_before: datetime | None = None


# --- what came of an effect ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Command):
    """Carries the attempt it belongs to; an older attempt is refused (fencing)."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordStarted(Outcome):
    ref: Mapping[str, Any]
    incarnation: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFailed(Outcome):
    error: str
    message: str
    reason: StopReason = StopReason.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPaused(Outcome):
    ref: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPauseFailed(Outcome):
    error: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordResumed(Outcome):
    ref: Mapping[str, Any]
    generation: int
    incarnation: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordResumeFailed(Outcome):
    error: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordStopped(Outcome):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishExecution(Command):
    execution_id: str
    result: ExecutionResult
    stdout_sha256: str
    stderr_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoseExecution(Command):
    execution_id: str
    reason: str


# --- recovery ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver(Command):
    """Carry on the operation in flight: allowed past its deadline, or once its holder is known to be dead."""

    deadline: datetime
    holder: str
    holder_is_dead: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordLost(Command):
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveDrift(Command):
    kind: str
    detail: str
    incarnation: str | None = None
