"""Every fact that can be recorded, as immutable, versioned values, and the envelope they travel in.

A new event is a class here with a `TOPIC` of its own and an entry in `nexus.domain.sandbox`'s fold; a changed one
gets a higher `VERSION`, an upcaster in `nexus.domain.encoding`, and a new line in the golden corpus (`tests/golden`).
Events hold digests, sizes and reasons: never code, output, or the values of environment variables.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final, NamedTuple

from pydantic import AwareDatetime

from nexus.domain.event import Event as Event
from nexus.domain.event import Json as Json
from nexus.domain.pool_events import POOL_EVENTS
from nexus.domain.values import ErasureReason, Operation, StopReason


# --- creation ------------------------------------------------------------------------------------------------------
class SandboxRequested(Event):
    """The intent to create: the first event of every sandbox; the owner in it never changes."""

    TOPIC: ClassVar = "sandbox.requested"
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
    limits: dict[str, int | float | None]
    labels: dict[str, str]
    env_names: tuple[str, ...]
    attempt: int
    deadline: AwareDatetime
    holder: str
    capture: bool = False
    """Whether code and output of its runs are kept: encrypted, and outside the log."""


class SandboxStarted(Event):
    TOPIC: ClassVar = "sandbox.started"
    attempt: int
    ref: Json
    incarnation: str
    expires_at: AwareDatetime
    notes: tuple[str, ...] = ()


class SandboxFailed(Event):
    TOPIC: ClassVar = "sandbox.failed"
    attempt: int
    reason: StopReason
    error: str
    message: str


# --- executions ----------------------------------------------------------------------------------------------------
class ExecutionStarted(Event):
    """The intent to run. Recorded before the provider is asked; each execution id runs at most once."""

    TOPIC: ClassVar = "execution.started"
    VERSION: ClassVar = 2
    execution_id: str
    language: str
    code_sha256: str
    code_bytes: int
    timeout: int
    lease_until: AwareDatetime
    holder: str
    expires_at: AwareDatetime
    session: str | None = None


class _ExecutionEnded(Event):
    execution_id: str
    exit_code: int
    duration: float
    stdout_bytes: int
    stderr_bytes: int
    stdout_sha256: str
    stderr_sha256: str
    truncated: bool
    expires_at: AwareDatetime


class ExecutionFinished(_ExecutionEnded):
    TOPIC: ClassVar = "execution.finished"
    signal: int | None = None
    oom_killed: bool = False


class ExecutionTimedOut(_ExecutionEnded):
    TOPIC: ClassVar = "execution.timed_out"


class ExecutionLost(Event):
    """Nobody knows how the run ended. It is said, and never tried again."""

    TOPIC: ClassVar = "execution.lost"
    execution_id: str
    reason: str


# --- pause, resume, extend -----------------------------------------------------------------------------------------
class _Intent(Event):
    attempt: int
    deadline: AwareDatetime
    holder: str


class _Failure(Event):
    attempt: int
    error: str
    message: str


class PauseRequested(_Intent):
    TOPIC: ClassVar = "sandbox.pause_requested"


class SandboxPaused(Event):
    TOPIC: ClassVar = "sandbox.paused"
    attempt: int
    ref: Json
    remaining_seconds: float


class PauseFailed(_Failure):
    TOPIC: ClassVar = "sandbox.pause_failed"


class ResumeRequested(_Intent):
    TOPIC: ClassVar = "sandbox.resume_requested"


class SandboxResumed(Event):
    TOPIC: ClassVar = "sandbox.resumed"
    attempt: int
    generation: int
    ref: Json
    incarnation: str
    expires_at: AwareDatetime
    notes: tuple[str, ...] = ()


class ResumeFailed(_Failure):
    TOPIC: ClassVar = "sandbox.resume_failed"


class SandboxExtended(Event):
    """A later end: `expires_at` while active, `remaining_seconds` while paused (its time stands still)."""

    TOPIC: ClassVar = "sandbox.extended"
    expires_at: AwareDatetime | None = None
    remaining_seconds: float | None = None


# --- the end -------------------------------------------------------------------------------------------------------
class StopRequested(_Intent):
    TOPIC: ClassVar = "sandbox.stop_requested"
    reason: StopReason


class SandboxStopped(Event):
    TOPIC: ClassVar = "sandbox.stopped"
    attempt: int
    reason: StopReason


class SandboxLost(Event):
    """The resource was proven to be gone."""

    TOPIC: ClassVar = "sandbox.lost"
    detail: str


# --- bodies --------------------------------------------------------------------------------------------------------
class BodiesErased(Event):
    """Kept code and output are gone for good: all of the sandbox's, or with `kept_before` those kept before then.

    They go in the transaction of this event. Counts are those of a moment before.
    """

    TOPIC: ClassVar = "sandbox.bodies_erased"
    reason: ErasureReason
    executions: int
    kept_before: AwareDatetime | None = None


# --- recovery ------------------------------------------------------------------------------------------------------
class DriftObserved(Event):
    """The world differed from the log, and what was done about it."""

    TOPIC: ClassVar = "sandbox.drift_observed"
    kind: str
    detail: str
    incarnation: str | None = None


class OperationTakenOver(_Intent):
    """Somebody else carries on an operation; outcomes with an older attempt are refused from here on (fencing)."""

    TOPIC: ClassVar = "sandbox.operation_taken_over"
    operation: Operation
    previous_holder: str


# --- what cannot be read ------------------------------------------------------------------------------------------
class Unread(Event):
    """Stands in a page of the log for a stored event that this version cannot read. It is never stored itself."""

    TOPIC: ClassVar = "unread"
    stored_topic: str
    stored_version: int
    reason: str


# --- streams beside the sandboxes ----------------------------------------------------------------------------------
class NameClaimed(Event):
    """A user's name now belongs to this sandbox; it is free again once that sandbox is stopped."""

    TOPIC: ClassVar = "name.claimed"
    name: str
    sandbox_id: str


class KeyClaimed(Event):
    """An idempotency key was used for this sandbox. `fingerprint` is a digest of the request's parameters."""

    TOPIC: ClassVar = "key.claimed"
    sandbox_id: str
    fingerprint: str


class CommandRefused(Event):
    """A command that was not carried out: no sandbox changed. `reference` is what the caller called the sandbox,
    `owner_id` whose it is, where the caller was told that there is none."""

    TOPIC: ClassVar = "command.refused"
    command: str
    user_id: str
    reference: str | None
    error: str
    message: str
    sandbox_id: str | None
    owner_id: str | None
    state: str | None


EVENT_TYPES: Final[tuple[type[Event], ...]] = (
    SandboxRequested,
    SandboxStarted,
    SandboxFailed,
    ExecutionStarted,
    ExecutionFinished,
    ExecutionTimedOut,
    ExecutionLost,
    PauseRequested,
    SandboxPaused,
    PauseFailed,
    ResumeRequested,
    SandboxResumed,
    ResumeFailed,
    SandboxExtended,
    StopRequested,
    SandboxStopped,
    SandboxLost,
    BodiesErased,
    DriftObserved,
    OperationTakenOver,
    NameClaimed,
    KeyClaimed,
    CommandRefused,
    *POOL_EVENTS,
)
BY_TOPIC: Final[dict[str, type[Event]]] = {kind.TOPIC: kind for kind in EVENT_TYPES}


class Fact(NamedTuple):
    """As much of an envelope as a state is folded from."""

    event: Event
    occurred_at: datetime
    originator_version: int


@dataclass(frozen=True, slots=True)
class Envelope:
    """One event and where it stands. `position` and `recorded_at` are the store's, None before the append.

    `originator_id` and `originator_version` are the stream and the version in it, by the names that the event
    sourcing library uses.
    """

    event_id: str
    originator_id: str
    originator_version: int
    occurred_at: datetime
    event: Event
    actor: str
    tenant_id: str
    command: str
    correlation_id: str
    causation_id: str | None
    origin: str
    """From where: the door, the machine and the process, see `nexus.domain.origin`."""
    agent_id: str | None = None
    position: int | None = None
    recorded_at: datetime | None = None

    @property
    def topic(self) -> str:
        return self.event.stored_topic if isinstance(self.event, Unread) else self.event.TOPIC

    @property
    def schema_version(self) -> int:
        return self.event.stored_version if isinstance(self.event, Unread) else self.event.VERSION
