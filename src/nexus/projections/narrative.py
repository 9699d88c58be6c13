"""Events told as sentences: what `events`, `replay` and `why` show. One sentence per event type, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from nexus.domain import events as ev
from nexus.domain import pool_events as pe
from nexus.domain.values import RetireReason, StopReason

_REASONS: Final = {
    StopReason.USER: "somebody asked for it",
    StopReason.EXPIRED: "its time was up",
    StopReason.FAILED: "it could not be brought up",
    StopReason.LOST: "its resource was gone",
    StopReason.ORPHANED: "whoever was creating it was gone",
}
_RETIRED: Final = {
    RetireReason.FAILED: "it could not be made",
    RetireReason.ABANDONED: "whoever was making it is gone",
    RetireReason.EXPIRED: "nobody took it in time",
    RetireReason.OUTDATED: "its template makes other resources now",
    RetireReason.SURPLUS: "the pool became smaller",
    RetireReason.LOST: "its resource is gone",
    RetireReason.UNFIT: "it could not become the sandbox that had taken it",
    RetireReason.STRANDED: "the sandbox that had taken it ended before",
    RetireReason.DRAINED: "an operator emptied the pool",
}


def sentence(envelope: ev.Envelope) -> str:
    """What happened, without who and when."""
    return _SENTENCES[type(envelope.event)](envelope.event)


def told(envelope: ev.Envelope) -> str:
    """What happened, when, by whom, and at which position."""
    return f"#{envelope.position} {at(envelope.occurred_at)} {envelope.actor}: {sentence(envelope)}"


def at(moment: datetime) -> str:
    """A time as people read it: UTC, to the millisecond."""
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def seconds(value: float) -> str:
    """A duration as people say it."""
    if 0 < value < 0.001:
        return f"{value * 1000:.1g} ms"
    if value < 60:
        return f"{value:.3g} s"
    if value < 3600:
        return f"{value / 60:.4g} min"
    return f"{value / 3600:.4g} h"


def reason(value: StopReason) -> str:
    """A stop reason in words."""
    return _REASONS[value]


def _why(value: StopReason) -> str:
    return "" if value is StopReason.USER else f": {reason(value)}"


def _requested(e: ev.SandboxRequested) -> str:
    return f"asked for sandbox '{e.name}' on {e.provider}, to live {seconds(e.ttl_seconds)} after its last use"


def _run_started(e: ev.ExecutionStarted) -> str:
    session = f" in session '{e.session}'" if e.session is not None else ""
    return (
        f"started {e.language} run {e.execution_id} ({e.code_bytes} bytes, sha256 {e.code_sha256[:12]}…)"
        f"{session} with a time-out of {seconds(e.timeout)}"
    )


def _run_finished(e: ev.ExecutionFinished) -> str:
    how = "ended by being out of memory" if e.oom_killed else f"ended with exit code {e.exit_code}"
    return f"run {e.execution_id} {how} after {seconds(e.duration)}"


def _extended(e: ev.SandboxExtended) -> str:
    if e.expires_at is not None:
        return f"extended: it lives until {at(e.expires_at)}"
    return f"extended: {seconds(e.remaining_seconds or 0)} are left once it is resumed"


def _refused(e: ev.CommandRefused) -> str:
    about = f" {e.reference!r}" if e.reference is not None else ""
    truth = f" (it is {e.owner_id}'s)" if e.owner_id is not None else ""
    return f"was refused to {e.command.replace('_', ' ')}{about}: {e.message}{truth} ({e.error})"


def _retired(e: pe.PoolMemberRetired) -> str:
    detail = f" ({e.detail})" if e.detail else ""
    return f"the pool member is to be removed: {_RETIRED[e.reason]}{detail}"


def _erased(e: ev.BodiesErased) -> str:
    if e.kept_before is not None:
        return f"code and output of {e.executions} runs were erased: kept since before {at(e.kept_before)}"
    return f"kept code and output of {e.executions} runs were erased"


_SENTENCES: Final[dict[type[ev.Event], Callable[[Any], str]]] = {
    ev.SandboxRequested: _requested,
    ev.SandboxStarted: lambda e: f"it came up; it lives until {at(e.expires_at)}",
    ev.SandboxFailed: lambda e: f"it did not come up: {e.message}",
    ev.ExecutionStarted: _run_started,
    ev.ExecutionFinished: _run_finished,
    ev.ExecutionTimedOut: lambda e: f"run {e.execution_id} was killed at its time-out, after {seconds(e.duration)}",
    ev.ExecutionLost: lambda e: f"run {e.execution_id} has no known outcome: {e.reason}",
    ev.PauseRequested: lambda e: "asked to pause it",
    ev.SandboxPaused: lambda e: f"it is paused; {seconds(e.remaining_seconds)} are left once it is resumed",
    ev.PauseFailed: lambda e: f"it could not be paused and stays active: {e.message}",
    ev.ResumeRequested: lambda e: "asked to resume it",
    ev.SandboxResumed: lambda e: f"it is active again; it lives until {at(e.expires_at)}",
    ev.ResumeFailed: lambda e: f"it could not be resumed and stays paused: {e.message}",
    ev.SandboxExtended: _extended,
    ev.StopRequested: lambda e: f"asked to stop it{_why(e.reason)}",
    ev.SandboxStopped: lambda e: f"it is stopped{_why(e.reason)}",
    ev.SandboxLost: lambda e: f"it is lost: {e.detail}",
    ev.BodiesErased: _erased,
    ev.DriftObserved: lambda e: f"found it changed ({e.kind}): {e.detail}",
    ev.OperationTakenOver: lambda e: f"took over the {e.operation} that {e.previous_holder} had begun",
    ev.NameClaimed: lambda e: f"the name '{e.name}' now means {e.sandbox_id}",
    ev.KeyClaimed: lambda e: f"an idempotency key now means {e.sandbox_id}",
    ev.CommandRefused: _refused,
    pe.PoolMemberRequested: lambda e: f"asked for pool member {e.member_id} of template {e.template} on {e.provider}",
    pe.PoolMemberReady: lambda e: "the pool member is there and waits for a sandbox",
    pe.PoolMemberTaken: lambda e: f"the pool member becomes {e.sandbox_id}",
    pe.PoolMemberRetired: _retired,
    pe.PoolMemberRemoved: lambda e: "the pool member is removed",
    pe.PoolSlotClaimed: lambda e: f"a slot of the pool now belongs to {e.member_id}",
    ev.Unread: lambda e: f"cannot be read by this version: {e.reason}",
}
