"""Sandboxes' lives as stretches of time and runs, folded from their events: what usage and timelines count and draw.

Pure: envelopes in the order of the log go in, nothing is asked of a store, a clock or a provider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from nexus.domain import events as ev
from nexus.domain.sandbox import sandbox_id_of
from nexus.domain.values import SandboxState, StopReason


class RunOutcome(StrEnum):
    """How a run ended, as far as it is recorded."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """It ended with another exit code than 0."""
    TIMED_OUT = "timed_out"
    LOST = "lost"
    RUNNING = "running"


@dataclass(slots=True)
class Stretch:
    """A time in one state; `end` None while it lasts."""

    state: SandboxState
    start: datetime
    end: datetime | None = None


@dataclass(slots=True)
class Run:
    """One execution. `end` is when its outcome was recorded, None while there is none."""

    execution_id: str
    language: str
    start: datetime
    end: datetime | None = None
    outcome: RunOutcome = RunOutcome.RUNNING


@dataclass(slots=True)
class Life:
    """One sandbox: whose it is, the states it was in, and what ran in it, oldest first."""

    sandbox_id: str
    name: str
    user_id: str
    tenant_id: str
    provider: str
    labels: Mapping[str, str]
    start: datetime
    stretches: list[Stretch]
    runs: dict[str, Run] = field(default_factory=dict)
    end: datetime | None = None
    stop_reason: StopReason | None = None
    unreadable: bool = False
    """There is an event that this version cannot read: what came from then on is not known and not counted."""


def lives(envelopes: Iterable[ev.Envelope]) -> list[Life]:
    """The lives that these events tell, in the order in which they began. Events of other streams are passed over.

    Times are those at which things were decided (`occurred_at`). An operation in flight changes no state: a sandbox
    is active until it *is* paused or stopped.
    """
    found: dict[str, Life] = {}
    for envelope in envelopes:
        sandbox_id = sandbox_id_of(envelope.originator_id)
        if sandbox_id is None:
            continue
        event, at = envelope.event, envelope.occurred_at
        life = found.get(sandbox_id)
        if life is None:
            if isinstance(event, ev.SandboxRequested):
                found[sandbox_id] = _begun(event, at)
        elif not life.unreadable:
            apply = _APPLY.get(type(event))
            if apply is not None:
                apply(life, event, at)
    return list(found.values())


def _begun(event: ev.SandboxRequested, at: datetime) -> Life:
    return Life(
        sandbox_id=event.sandbox_id,
        name=event.name,
        user_id=event.user_id,
        tenant_id=event.tenant_id,
        provider=event.provider,
        labels=event.labels,
        start=at,
        stretches=[Stretch(SandboxState.CREATING, at)],
    )


def _enter(state: SandboxState) -> Callable[[Life, Any, datetime], None]:
    def apply(life: Life, _event: ev.Event, at: datetime) -> None:
        life.stretches[-1].end = at
        life.stretches.append(Stretch(state, at))

    return apply


def _end(life: Life, at: datetime) -> None:
    life.stretches[-1].end = at
    life.end = at
    for run in life.runs.values():
        if run.end is None:  # nothing outlives its sandbox; an outcome that is recorded later still says how it ended
            run.end, run.outcome = at, RunOutcome.LOST


def _stopped(life: Life, event: ev.SandboxStopped | ev.SandboxFailed, at: datetime) -> None:
    life.stop_reason = event.reason
    _end(life, at)


def _lost(life: Life, _event: ev.SandboxLost, at: datetime) -> None:
    life.stop_reason = StopReason.LOST
    _end(life, at)


def _run_started(life: Life, event: ev.ExecutionStarted, at: datetime) -> None:
    life.runs[event.execution_id] = Run(event.execution_id, event.language, at)


def _run_ended(outcome: Callable[[Any], RunOutcome]) -> Callable[[Life, Any, datetime], None]:
    def apply(life: Life, event: Any, at: datetime) -> None:
        run = life.runs.get(event.execution_id)
        if run is None:
            return  # as the state's fold does: a log written under other rules still tells what it can
        run.end = at if run.end is None else min(at, run.end)
        run.outcome = outcome(event)

    return apply


def _finished(event: ev.ExecutionFinished) -> RunOutcome:
    return RunOutcome.SUCCEEDED if event.exit_code == 0 else RunOutcome.FAILED


def _unread(life: Life, _event: ev.Unread, at: datetime) -> None:
    life.stretches[-1].end = life.stretches[-1].end or at
    life.unreadable = True


_APPLY: Final[dict[type[ev.Event], Callable[[Life, Any, datetime], None]]] = {
    ev.SandboxStarted: _enter(SandboxState.ACTIVE),
    ev.SandboxFailed: _stopped,
    ev.ExecutionStarted: _run_started,
    ev.ExecutionFinished: _run_ended(_finished),
    ev.ExecutionTimedOut: _run_ended(lambda _: RunOutcome.TIMED_OUT),
    ev.ExecutionLost: _run_ended(lambda _: RunOutcome.LOST),
    ev.SandboxPaused: _enter(SandboxState.PAUSED),
    ev.SandboxResumed: _enter(SandboxState.ACTIVE),
    ev.SandboxStopped: _stopped,
    ev.SandboxLost: _lost,
    ev.Unread: _unread,
}
"""What changes a life; every other event leaves its states and runs as they are."""
