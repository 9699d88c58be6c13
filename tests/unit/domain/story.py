"""Given events, when a command, then events or a refusal: the words that the domain tests are written in.

Nothing but the pure core may be imported here: no store, no provider, no clock.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from nexus.domain import commands as cmd
from nexus.domain import events as ev
from nexus.domain.decisions import decide
from nexus.domain.provider import ExecutionResult
from nexus.domain.sandbox import Sandbox, fold
from nexus.domain.values import ErasureReason, Operation, SandboxState, StopReason

START = datetime(2030, 1, 1, 12, tzinfo=UTC)
SANDBOX = "sb_" + "5" * 32
REF = {"provider": "fake", "version": 1, "data": {"id": "r1"}}


def at(minutes: float) -> datetime:
    """So many minutes after the story began."""
    return START + timedelta(minutes=minutes)


def envelope(event: ev.Event, version: int, moment: datetime = START) -> ev.Envelope:
    return ev.Envelope(
        event_id=f"{version:032x}",
        originator_id="sandbox-" + "5" * 32,
        originator_version=version,
        occurred_at=moment,
        event=event,
        actor="user:ann",
        tenant_id="default",
        command="test",
        correlation_id="c",
        causation_id=None,
        origin="python@host:1",
    )


def folded(state: Sandbox | None, events: Iterable[ev.Event], moment: datetime = START) -> Sandbox | None:
    """The state after these events; the state that comes in stays as it is."""
    state = copy.deepcopy(state)
    version = 0 if state is None else state.version
    return fold(state, [envelope(event, version + n, moment) for n, event in enumerate(events, start=1)])


def given(*events: ev.Event | tuple[ev.Event, float]) -> Sandbox:
    """The state after a story. An event may come with the minute at which it happened."""
    state: Sandbox | None = None
    for entry in events:
        event, minute = entry if isinstance(entry, tuple) else (entry, 0.0)
        state = folded(state, [event], at(minute))
    assert state is not None
    return state


def when(state: Sandbox | None, command: cmd.Command, minute: float = 0.0) -> list[ev.Event]:
    """What the command leads to; deciding must leave the state alone."""
    before = copy.deepcopy(state)
    try:
        return decide(command, state, at(minute))
    finally:
        assert state == before, f"deciding on {type(command).__name__} changed the state"


# --- events, with what a test does not care about filled in ----------------------------------------------------------
def requested(*, ttl_minutes: int = 10, max_age_days: int = 30) -> ev.SandboxRequested:
    return ev.SandboxRequested(
        sandbox_id=SANDBOX,
        name="data-analysis",
        user_id="ann",
        tenant_id="default",
        agent_id=None,
        provider="fake",
        template_id=None,
        ttl_seconds=ttl_minutes * 60,
        max_age_seconds=max_age_days * 86400,
        network="full",
        limits={"memory_mb": 512, "cpus": 0.5, "processes": None},
        labels={"team": "data"},
        env_names=("TOKEN",),
        attempt=1,
        deadline=at(3),
        holder="host:1",
    )


def started(*, expires: float = 10, attempt: int = 1) -> ev.SandboxStarted:
    return ev.SandboxStarted(attempt=attempt, ref=REF, incarnation="i1", expires_at=at(expires))


def failed(*, attempt: int = 1, reason: StopReason = StopReason.FAILED) -> ev.SandboxFailed:
    return ev.SandboxFailed(attempt=attempt, reason=reason, error="provider_auth", message="no such key")


def run_started(execution_id: str = "ex_1", *, lease: float = 1, expires: float = 10) -> ev.ExecutionStarted:
    return ev.ExecutionStarted(
        execution_id=execution_id,
        language="python",
        code_sha256="0" * 64,
        code_bytes=11,
        timeout=30,
        lease_until=at(lease),
        holder="host:1",
        expires_at=at(expires),
    )


def run_finished(execution_id: str = "ex_1", *, expires: float = 10) -> ev.ExecutionFinished:
    return ev.ExecutionFinished(
        execution_id=execution_id,
        exit_code=0,
        duration=0.5,
        stdout_bytes=3,
        stderr_bytes=0,
        stdout_sha256="1" * 64,
        stderr_sha256="2" * 64,
        truncated=False,
        expires_at=at(expires),
    )


def pause_requested(*, attempt: int = 2, deadline: float = 5) -> ev.PauseRequested:
    return ev.PauseRequested(attempt=attempt, deadline=at(deadline), holder="host:1")


def paused(*, attempt: int = 2, remaining: float = 300.0) -> ev.SandboxPaused:
    return ev.SandboxPaused(attempt=attempt, ref=REF, remaining_seconds=remaining)


def resume_requested(*, attempt: int = 3, deadline: float = 5) -> ev.ResumeRequested:
    return ev.ResumeRequested(attempt=attempt, deadline=at(deadline), holder="host:1")


def resumed(*, attempt: int = 3, expires: float = 10) -> ev.SandboxResumed:
    return ev.SandboxResumed(attempt=attempt, generation=2, ref=REF, incarnation="i2", expires_at=at(expires))


def stop_requested(*, attempt: int = 2, deadline: float = 5, reason: StopReason = StopReason.USER) -> ev.StopRequested:
    return ev.StopRequested(attempt=attempt, deadline=at(deadline), holder="host:1", reason=reason)


def stopped(*, attempt: int = 2, reason: StopReason = StopReason.USER) -> ev.SandboxStopped:
    return ev.SandboxStopped(attempt=attempt, reason=reason)


def taken_over(operation: Operation, *, attempt: int = 2, deadline: float = 5) -> ev.OperationTakenOver:
    return ev.OperationTakenOver(
        operation=operation, attempt=attempt, deadline=at(deadline), holder="host:2", previous_holder="host:1"
    )


# --- commands, likewise ----------------------------------------------------------------------------------------------
def result(**changes: object) -> ExecutionResult:
    values: dict[str, object] = {
        "exit_code": 0,
        "stdout": b"42\n",
        "stderr": b"",
        "stdout_bytes": 3,
        "stderr_bytes": 0,
        "duration": 0.25,
    }
    return ExecutionResult(**{**values, **changes})  # type: ignore[arg-type]


def every_command(
    *, attempt: int, execution_id: str = "ex_1", deadline: float = 60
) -> dict[type[cmd.Command], cmd.Command]:
    """One of each command there is. Outcomes carry `attempt`, those about a run carry `execution_id`."""
    until = at(60)
    made: tuple[cmd.Command, ...] = (
        cmd.RequestSandbox(
            sandbox_id=SANDBOX,
            name="data-analysis",
            user_id="ann",
            tenant_id="default",
            agent_id=None,
            provider="fake",
            template_id=None,
            ttl_seconds=600,
            max_age_seconds=86400,
            network="full",
            limits={"memory_mb": 512},
            labels={},
            env_names=(),
            deadline=until,
            holder="host:2",
        ),
        cmd.StartExecution(
            execution_id="ex_new",
            language="python",
            code_sha256="0" * 64,
            code_bytes=11,
            timeout=30,
            lease_until=until,
            holder="host:2",
        ),
        cmd.RequestPause(deadline=until, holder="host:2"),
        cmd.RequestResume(deadline=until, holder="host:2"),
        cmd.ExtendSandbox(seconds=24 * 3600),
        cmd.RequestStop(deadline=until, holder="host:2"),
        cmd.ExpireSandbox(deadline=until, holder="host:2"),
        cmd.EraseBodies(reason=ErasureReason.USER, executions=2),
        cmd.RecordStarted(attempt=attempt, ref=REF, incarnation="i1"),
        cmd.RecordFailed(attempt=attempt, error="provider_auth", message="no such key"),
        cmd.RecordPaused(attempt=attempt, ref=REF),
        cmd.RecordPauseFailed(attempt=attempt, error="provider_unavailable", message="no answer"),
        cmd.RecordResumed(attempt=attempt, ref=REF, generation=2, incarnation="i2"),
        cmd.RecordResumeFailed(attempt=attempt, error="provider_unavailable", message="no answer"),
        cmd.RecordStopped(attempt=attempt),
        cmd.FinishExecution(execution_id=execution_id, result=result(), stdout_sha256="1" * 64, stderr_sha256="2" * 64),
        cmd.LoseExecution(execution_id=execution_id, reason="its holder died"),
        cmd.TakeOver(deadline=until, holder="host:2"),
        cmd.RecordLost(detail="no such container"),
        cmd.ObserveDrift(kind="restarted", detail="processes were lost", incarnation="i9"),
    )
    return {type(command): command for command in made}


def leaves(base: type[cmd.Command]) -> set[type[cmd.Command]]:
    """The commands below `base` that nothing derives from."""
    # Not `__subclasses__()`: a dataclass with slots leaves the class that it was made from behind.
    kinds = [kind for kind in vars(cmd).values() if isinstance(kind, type) and issubclass(kind, base)]
    return {kind for kind in kinds if not any(other is not kind and issubclass(other, kind) for other in kinds)}


Situation = tuple[SandboxState, Operation | None, bool, bool]
"""State, operation in flight, a run inside its time-out, a run past it."""


def situation(state: Sandbox, now: datetime) -> Situation:
    leases = [run.lease_until for run in state.executions.values()]
    return (
        state.state,
        state.pending.operation if state.pending else None,
        any(lease > now for lease in leases),
        any(lease <= now for lease in leases),
    )
