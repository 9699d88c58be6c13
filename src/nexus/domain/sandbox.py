"""The sandbox aggregate: its state, and how each event changes it.

`fold` is a plain loop over a table from event type to function. It never asks the machine's guards, so a log written
under older rules still replays; every event leads to a state of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final

from nexus.domain import events as ev
from nexus.domain.values import Operation, SandboxState, StopReason


@dataclass(frozen=True, slots=True)
class Pending:
    """An operation in flight: its intent is recorded, its outcome is not."""

    operation: Operation
    attempt: int
    deadline: datetime
    holder: str
    reason: StopReason | None = None


@dataclass(frozen=True, slots=True)
class OpenExecution:
    """A run whose outcome is not recorded."""

    execution_id: str
    started_at: datetime
    lease_until: datetime
    holder: str


@dataclass(slots=True)
class Sandbox:
    """What the events say about one sandbox. Only `fold` changes it."""

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
    created_at: datetime
    version: int = 1
    state: SandboxState = SandboxState.CREATING
    attempt: int = 1
    """The highest attempt number given out: the fencing token of the operation in flight."""
    generation: int = 1
    pending: Pending | None = None
    executions: dict[str, OpenExecution] = field(default_factory=dict)
    ref: ev.Json | None = None
    incarnation: str = ""
    notes: tuple[str, ...] = ()
    started_at: datetime | None = None
    last_active_at: datetime | None = None
    paused_at: datetime | None = None
    stopped_at: datetime | None = None
    stop_reason: StopReason | None = None
    expires_at: datetime | None = None
    remaining_seconds: float | None = None
    """What is left of the time to live while paused; it stands still."""
    last_error: str | None = None
    runs: int = 0
    capture: bool = False
    """Whether code and output of its runs are kept."""

    def __copy__(self) -> Sandbox:
        """A state of one's own to fold on. Every load makes one; by its constructor it costs a sixth."""
        return Sandbox(*_values(self))

    @property
    def ttl(self) -> timedelta:
        return timedelta(seconds=self.ttl_seconds)

    @property
    def oldest_end(self) -> datetime:
        """The absolute end of a paused sandbox."""
        return self.created_at + timedelta(seconds=self.max_age_seconds)

    def due_at(self) -> datetime | None:
        """When somebody has to look at this sandbox next; None once it is stopped."""
        if self.state is SandboxState.STOPPED:
            return None
        moments = [run.lease_until for run in self.executions.values()]
        if self.pending is not None:
            moments.append(self.pending.deadline)
        elif self.state is SandboxState.PAUSED:
            moments.append(self.oldest_end)
        elif not moments and self.expires_at is not None:
            moments.append(self.expires_at)
        return min(moments, default=None)

    def is_expired(self, now: datetime) -> bool:
        """The time is up, and no run is inside its own time-out."""
        if self.state is SandboxState.PAUSED:
            return now >= self.oldest_end
        if self.state is not SandboxState.ACTIVE or self.expires_at is None or now < self.expires_at:
            return False
        return all(run.lease_until <= now for run in self.executions.values())


_values: Callable[[Sandbox], tuple[Any, ...]] = attrgetter(*(each.name for each in fields(Sandbox)))


def stream_id(sandbox_id: str) -> str:
    """The event stream of a sandbox: `sb_<hex>` lives in `sandbox-<hex>`."""
    return "sandbox-" + sandbox_id.removeprefix("sb_")


def is_sandbox_stream(stream: str) -> bool:
    return stream.startswith("sandbox-")


def sandbox_id_of(stream: str) -> str | None:
    """The sandbox of a stream, None for streams of other kinds."""
    return "sb_" + stream.removeprefix("sandbox-") if is_sandbox_stream(stream) else None


def created(event: ev.SandboxRequested, at: datetime) -> Sandbox:
    """The state after the first event."""
    return Sandbox(
        sandbox_id=event.sandbox_id,
        name=event.name,
        user_id=event.user_id,
        tenant_id=event.tenant_id,
        agent_id=event.agent_id,
        provider=event.provider,
        template_id=event.template_id,
        ttl_seconds=event.ttl_seconds,
        max_age_seconds=event.max_age_seconds,
        network=event.network,
        limits=dict(event.limits),
        labels=dict(event.labels),
        env_names=event.env_names,
        created_at=at,
        attempt=event.attempt,
        pending=Pending(Operation.CREATE, event.attempt, event.deadline, event.holder),
        capture=event.capture,
    )


def _started(s: Sandbox, e: ev.SandboxStarted, at: datetime) -> None:
    s.state = SandboxState.ACTIVE
    s.pending = None
    s.ref, s.incarnation, s.notes = e.ref, e.incarnation, e.notes
    s.started_at = s.last_active_at = at
    s.expires_at = e.expires_at


def _failed(s: Sandbox, e: ev.SandboxFailed, at: datetime) -> None:
    _end(s, e.reason, at)
    s.last_error = e.message


def _end(s: Sandbox, reason: StopReason, at: datetime) -> None:
    s.state = SandboxState.STOPPED
    s.pending = None
    s.executions = {}
    s.stopped_at = at
    s.stop_reason = reason


def _execution_started(s: Sandbox, e: ev.ExecutionStarted, at: datetime) -> None:
    s.executions = {
        **s.executions,
        e.execution_id: OpenExecution(e.execution_id, at, e.lease_until, e.holder),
    }
    s.last_active_at = at
    s.expires_at = e.expires_at
    s.runs += 1


def _without(s: Sandbox, execution_id: str) -> dict[str, OpenExecution]:
    """A dictionary of its own: copies of a state share theirs."""
    executions = s.executions.copy()
    executions.pop(execution_id, None)
    return executions


def _execution_ended(s: Sandbox, e: ev.ExecutionFinished | ev.ExecutionTimedOut, at: datetime) -> None:
    s.executions = _without(s, e.execution_id)
    s.last_active_at = at
    if s.state is SandboxState.ACTIVE:  # a late outcome must not wake the clock of a paused sandbox
        s.expires_at = e.expires_at


def _execution_lost(s: Sandbox, e: ev.ExecutionLost, _at: datetime) -> None:
    s.executions = _without(s, e.execution_id)


def _intent(operation: Operation) -> Callable[[Sandbox, Any, datetime], None]:
    def apply(s: Sandbox, e: ev.PauseRequested | ev.ResumeRequested, _at: datetime) -> None:
        s.attempt = e.attempt
        s.pending = Pending(operation, e.attempt, e.deadline, e.holder)

    return apply


def _stop_requested(s: Sandbox, e: ev.StopRequested, _at: datetime) -> None:
    s.attempt = e.attempt
    s.pending = Pending(Operation.STOP, e.attempt, e.deadline, e.holder, e.reason)


def _paused(s: Sandbox, e: ev.SandboxPaused, at: datetime) -> None:
    s.state = SandboxState.PAUSED
    s.pending = None
    s.ref = e.ref
    s.paused_at = at
    s.remaining_seconds = e.remaining_seconds
    s.expires_at = None


def _resumed(s: Sandbox, e: ev.SandboxResumed, at: datetime) -> None:
    s.state = SandboxState.ACTIVE
    s.pending = None
    s.generation = e.generation
    s.ref, s.incarnation, s.notes = e.ref, e.incarnation, e.notes
    s.paused_at = None
    s.remaining_seconds = None
    s.last_active_at = at
    s.expires_at = e.expires_at


def _operation_failed(s: Sandbox, e: ev.PauseFailed | ev.ResumeFailed, _at: datetime) -> None:
    s.pending = None
    s.last_error = e.message


def _extended(s: Sandbox, e: ev.SandboxExtended, _at: datetime) -> None:
    if e.expires_at is not None:
        s.expires_at = e.expires_at
    if e.remaining_seconds is not None:
        s.remaining_seconds = e.remaining_seconds


def _stopped(s: Sandbox, e: ev.SandboxStopped, at: datetime) -> None:
    _end(s, e.reason, at)


def _lost(s: Sandbox, e: ev.SandboxLost, at: datetime) -> None:
    _end(s, StopReason.LOST, at)
    s.last_error = e.detail


def _bodies_erased(_s: Sandbox, _e: ev.BodiesErased, _at: datetime) -> None:
    """What is kept beside the log is no part of the state."""


def _drifted(s: Sandbox, e: ev.DriftObserved, _at: datetime) -> None:
    if e.incarnation is not None:
        s.incarnation = e.incarnation


def _taken_over(s: Sandbox, e: ev.OperationTakenOver, _at: datetime) -> None:
    reason = s.pending.reason if s.pending is not None else None
    s.attempt = e.attempt
    s.pending = Pending(e.operation, e.attempt, e.deadline, e.holder, reason)


APPLY: Final[dict[type[ev.Event], Callable[[Sandbox, Any, datetime], None]]] = {
    ev.SandboxStarted: _started,
    ev.SandboxFailed: _failed,
    ev.ExecutionStarted: _execution_started,
    ev.ExecutionFinished: _execution_ended,
    ev.ExecutionTimedOut: _execution_ended,
    ev.ExecutionLost: _execution_lost,
    ev.PauseRequested: _intent(Operation.PAUSE),
    ev.SandboxPaused: _paused,
    ev.PauseFailed: _operation_failed,
    ev.ResumeRequested: _intent(Operation.RESUME),
    ev.SandboxResumed: _resumed,
    ev.ResumeFailed: _operation_failed,
    ev.SandboxExtended: _extended,
    ev.StopRequested: _stop_requested,
    ev.SandboxStopped: _stopped,
    ev.SandboxLost: _lost,
    ev.BodiesErased: _bodies_erased,
    ev.DriftObserved: _drifted,
    ev.OperationTakenOver: _taken_over,
}


def fold(state: Sandbox | None, envelopes: Iterable[ev.Envelope | ev.Fact]) -> Sandbox | None:
    """The state after these envelopes of one stream. The state that comes in is changed: pass one that you own."""
    for envelope in envelopes:
        event = envelope.event
        if state is None:
            if not isinstance(event, ev.SandboxRequested):
                raise ValueError(f"a sandbox begins with {ev.SandboxRequested.TOPIC}, not {event.TOPIC}")
            state = created(event, envelope.occurred_at)
        else:
            APPLY[type(event)](state, event, envelope.occurred_at)
        state.version = envelope.originator_version
    return state
