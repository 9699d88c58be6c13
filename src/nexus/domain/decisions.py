"""`decide(command, state, now) → events`: every rule about what may happen, and nothing else.

A decision that changes nothing returns no event (idempotent); one that may not happen raises and records nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from nexus.domain import commands as cmd
from nexus.domain import events as ev
from nexus.domain.errors import Conflict, SandboxBusy
from nexus.domain.lifecycle import target
from nexus.domain.sandbox import OpenExecution, Pending, Sandbox
from nexus.domain.validation import said
from nexus.domain.values import Operation, SandboxState, StopReason


class Superseded(Conflict):
    """Somebody else carried on or ended this operation; this outcome came too late and is not recorded."""

    code = "superseded"
    hint = "Look at the sandbox's status and events."


def decide(command: cmd.Command, state: Sandbox | None, now: datetime) -> list[ev.Event]:
    """The events that this command leads to in this state, at this time."""
    if isinstance(command, cmd.RequestSandbox):
        if state is not None:
            raise Conflict(f"Sandbox {command.sandbox_id} was requested before", sandbox_id=command.sandbox_id)
        return [_request(command)]
    if state is None:
        raise ValueError(f"{type(command).__name__} needs a sandbox")
    return _DECIDE[type(command)](command, state, now)


def _request(c: cmd.RequestSandbox) -> ev.Event:
    return ev.SandboxRequested(
        sandbox_id=c.sandbox_id,
        name=c.name,
        user_id=c.user_id,
        tenant_id=c.tenant_id,
        agent_id=c.agent_id,
        provider=c.provider,
        template_id=c.template_id,
        ttl_seconds=c.ttl_seconds,
        max_age_seconds=c.max_age_seconds,
        network=c.network,
        limits=dict(c.limits),
        labels=dict(c.labels),
        env_names=c.env_names,
        attempt=1,
        deadline=c.deadline,
        holder=c.holder,
        capture=c.capture,
    )


# --- guards --------------------------------------------------------------------------------------------------------
def _nothing_in_flight(state: Sandbox, trigger: str) -> None:
    if state.pending is not None:
        raise SandboxBusy(
            f"Cannot {trigger} sandbox {state.sandbox_id}: {state.pending.operation} is in flight",
            sandbox_id=state.sandbox_id,
            operation=state.pending.operation,
            deadline=state.pending.deadline,
        )


def _no_open_run(state: Sandbox, now: datetime) -> None:
    running = [run.execution_id for run in state.executions.values() if run.lease_until > now]
    if running:
        raise SandboxBusy(
            f"Cannot pause sandbox {state.sandbox_id}: {len(running)} run(s) in flight",
            sandbox_id=state.sandbox_id,
            execution_ids=tuple(running),
        )


def _my_attempt(state: Sandbox, command: cmd.Outcome, operation: Operation) -> Pending:
    pending = state.pending
    if pending is None or pending.operation is not operation or pending.attempt != command.attempt:
        raise Superseded(
            f"The outcome of attempt {command.attempt} to {operation} sandbox {state.sandbox_id} came too late",
            sandbox_id=state.sandbox_id,
            operation=operation,
            attempt=command.attempt,
        )
    return pending


def _open_run(state: Sandbox, execution_id: str) -> OpenExecution:
    run = state.executions.get(execution_id)
    if run is None:
        raise Superseded(
            f"Execution {execution_id} is not open any more",
            sandbox_id=state.sandbox_id,
            execution_id=execution_id,
        )
    return run


def _later(state: Sandbox, moment: datetime) -> datetime:
    """Time to live only ever grows."""
    return moment if state.expires_at is None else max(state.expires_at, moment)


# --- executions ----------------------------------------------------------------------------------------------------
def _start_execution(c: cmd.StartExecution, s: Sandbox, now: datetime) -> list[ev.Event]:
    target("run", s.state, s.sandbox_id)
    _nothing_in_flight(s, "run code in")
    if c.execution_id in s.executions:
        raise Conflict(f"Execution {c.execution_id} was started before", execution_id=c.execution_id)
    return [
        ev.ExecutionStarted(
            execution_id=c.execution_id,
            language=c.language,
            code_sha256=c.code_sha256,
            code_bytes=c.code_bytes,
            timeout=c.timeout,
            lease_until=c.lease_until,
            holder=c.holder,
            expires_at=_later(s, now + s.ttl),
            session=c.session,
        )
    ]


def _finish_execution(c: cmd.FinishExecution, s: Sandbox, now: datetime) -> list[ev.Event]:
    _open_run(s, c.execution_id)
    result = c.result
    common: dict[str, Any] = {
        "execution_id": c.execution_id,
        "exit_code": result.exit_code,
        "duration": result.duration,
        "stdout_bytes": result.stdout_bytes,
        "stderr_bytes": result.stderr_bytes,
        "stdout_sha256": c.stdout_sha256,
        "stderr_sha256": c.stderr_sha256,
        "truncated": result.truncated,
        "expires_at": _later(s, now + s.ttl),
    }
    if result.timed_out:
        return [ev.ExecutionTimedOut(**common)]
    return [ev.ExecutionFinished(**common, signal=result.signal, oom_killed=result.oom_killed)]


def _lose_execution(c: cmd.LoseExecution, s: Sandbox, _now: datetime) -> list[ev.Event]:
    if c.execution_id not in s.executions:
        return []
    return [ev.ExecutionLost(execution_id=c.execution_id, reason=said(c.reason))]


# --- pause, resume, extend -----------------------------------------------------------------------------------------
def _request_pause(c: cmd.RequestPause, s: Sandbox, now: datetime) -> list[ev.Event]:
    if s.state is not SandboxState.PAUSED:
        target("pause", s.state, s.sandbox_id)
    _nothing_in_flight(s, "pause")
    if s.state is SandboxState.PAUSED:
        return []
    _no_open_run(s, now)
    return [ev.PauseRequested(attempt=s.attempt + 1, deadline=c.deadline, holder=c.holder)]


def _record_paused(c: cmd.RecordPaused, s: Sandbox, now: datetime) -> list[ev.Event]:
    _my_attempt(s, c, Operation.PAUSE)
    target("pause", s.state, s.sandbox_id)
    remaining = max(0.0, (s.expires_at - now).total_seconds()) if s.expires_at else float(s.ttl_seconds)
    return [ev.SandboxPaused(attempt=c.attempt, ref=dict(c.ref), remaining_seconds=remaining)]


def _record_pause_failed(c: cmd.RecordPauseFailed, s: Sandbox, _now: datetime) -> list[ev.Event]:
    _my_attempt(s, c, Operation.PAUSE)
    return [ev.PauseFailed(attempt=c.attempt, error=c.error, message=said(c.message))]


def _request_resume(c: cmd.RequestResume, s: Sandbox, _now: datetime) -> list[ev.Event]:
    if s.state is not SandboxState.ACTIVE:
        target("resume", s.state, s.sandbox_id)
    _nothing_in_flight(s, "resume")
    if s.state is SandboxState.ACTIVE:
        return []
    return [ev.ResumeRequested(attempt=s.attempt + 1, deadline=c.deadline, holder=c.holder)]


def _record_resumed(c: cmd.RecordResumed, s: Sandbox, now: datetime) -> list[ev.Event]:
    _my_attempt(s, c, Operation.RESUME)
    target("resume", s.state, s.sandbox_id)
    remaining = float(s.ttl_seconds) if s.remaining_seconds is None else s.remaining_seconds
    return [
        ev.SandboxResumed(
            attempt=c.attempt,
            ref=dict(c.ref),
            generation=c.generation,
            incarnation=c.incarnation,
            expires_at=now + timedelta(seconds=remaining),
            notes=tuple(map(said, c.notes)),
        )
    ]


def _record_resume_failed(c: cmd.RecordResumeFailed, s: Sandbox, _now: datetime) -> list[ev.Event]:
    _my_attempt(s, c, Operation.RESUME)
    return [ev.ResumeFailed(attempt=c.attempt, error=c.error, message=said(c.message))]


def _extend(c: cmd.ExtendSandbox, s: Sandbox, now: datetime) -> list[ev.Event]:
    target("extend", s.state, s.sandbox_id)
    _nothing_in_flight(s, "extend")
    if s.state is SandboxState.PAUSED:
        remaining = s.remaining_seconds or 0.0
        return [ev.SandboxExtended(remaining_seconds=float(c.seconds))] if c.seconds > remaining else []
    wanted = now + timedelta(seconds=c.seconds)
    if s.expires_at is not None and wanted <= s.expires_at:
        return []
    return [ev.SandboxExtended(expires_at=wanted)]


# --- creation and the end ------------------------------------------------------------------------------------------
def _record_started(c: cmd.RecordStarted, s: Sandbox, now: datetime) -> list[ev.Event]:
    _my_attempt(s, c, Operation.CREATE)
    target("start", s.state, s.sandbox_id)
    return [
        ev.SandboxStarted(
            attempt=c.attempt,
            ref=dict(c.ref),
            incarnation=c.incarnation,
            expires_at=now + s.ttl,
            notes=tuple(map(said, c.notes)),
        )
    ]


def _record_failed(c: cmd.RecordFailed, s: Sandbox, _now: datetime) -> list[ev.Event]:
    _my_attempt(s, c, Operation.CREATE)
    target("fail", s.state, s.sandbox_id)
    return [ev.SandboxFailed(attempt=c.attempt, reason=c.reason, error=c.error, message=said(c.message))]


def _request_stop(c: cmd.RequestStop, s: Sandbox, _now: datetime) -> list[ev.Event]:
    if s.state is SandboxState.STOPPED:
        return []
    target("stop", s.state, s.sandbox_id)
    if s.pending is not None and s.pending.operation is Operation.STOP:
        _nothing_in_flight(s, "stop")
    return [ev.StopRequested(attempt=s.attempt + 1, deadline=c.deadline, holder=c.holder, reason=c.reason)]


def _expire(c: cmd.ExpireSandbox, s: Sandbox, now: datetime) -> list[ev.Event]:
    if s.pending is not None or not s.is_expired(now):
        return []
    return _request_stop(cmd.RequestStop(deadline=c.deadline, holder=c.holder, reason=StopReason.EXPIRED), s, now)


def _runs_lost(s: Sandbox, reason: str) -> list[ev.Event]:
    return [ev.ExecutionLost(execution_id=run, reason=reason) for run in s.executions]


def _record_stopped(c: cmd.RecordStopped, s: Sandbox, _now: datetime) -> list[ev.Event]:
    pending = _my_attempt(s, c, Operation.STOP)
    target("stop", s.state, s.sandbox_id)
    reason = pending.reason or StopReason.USER
    return [*_runs_lost(s, "the sandbox was stopped"), ev.SandboxStopped(attempt=c.attempt, reason=reason)]


def _record_lost(c: cmd.RecordLost, s: Sandbox, _now: datetime) -> list[ev.Event]:
    if s.state is SandboxState.STOPPED:
        return []
    target("lose", s.state, s.sandbox_id)
    return [*_runs_lost(s, "the sandbox was lost"), ev.SandboxLost(detail=said(c.detail))]


# --- recovery ------------------------------------------------------------------------------------------------------
def _take_over(c: cmd.TakeOver, s: Sandbox, now: datetime) -> list[ev.Event]:
    pending = s.pending
    if pending is None or not (c.holder_is_dead or now >= pending.deadline):
        return []
    return [
        ev.OperationTakenOver(
            operation=pending.operation,
            attempt=s.attempt + 1,
            deadline=c.deadline,
            holder=c.holder,
            previous_holder=pending.holder,
        )
    ]


def _observe_drift(c: cmd.ObserveDrift, _s: Sandbox, _now: datetime) -> list[ev.Event]:
    return [ev.DriftObserved(kind=c.kind, detail=said(c.detail), incarnation=c.incarnation)]


def _erase_bodies(c: cmd.EraseBodies, _s: Sandbox, _now: datetime) -> list[ev.Event]:
    return [ev.BodiesErased(reason=c.reason, executions=c.executions, kept_before=c.kept_before)]


_DECIDE: Final[dict[type[cmd.Command], Callable[[Any, Sandbox, datetime], list[ev.Event]]]] = {
    cmd.StartExecution: _start_execution,
    cmd.FinishExecution: _finish_execution,
    cmd.LoseExecution: _lose_execution,
    cmd.RequestPause: _request_pause,
    cmd.RecordPaused: _record_paused,
    cmd.RecordPauseFailed: _record_pause_failed,
    cmd.RequestResume: _request_resume,
    cmd.RecordResumed: _record_resumed,
    cmd.RecordResumeFailed: _record_resume_failed,
    cmd.ExtendSandbox: _extend,
    cmd.RecordStarted: _record_started,
    cmd.RecordFailed: _record_failed,
    cmd.RequestStop: _request_stop,
    cmd.EraseBodies: _erase_bodies,
    cmd.ExpireSandbox: _expire,
    cmd.RecordStopped: _record_stopped,
    cmd.TakeOver: _take_over,
    cmd.RecordLost: _record_lost,
    cmd.ObserveDrift: _observe_drift,
}
