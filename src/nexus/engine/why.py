"""Why a sandbox is in its state: the causal chain to the present, in plain sentences with positions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nexus.domain import events as ev
from nexus.domain.values import Operation, SandboxState, StopReason
from nexus.engine.history import Step
from nexus.projections.narrative import at, reason, seconds, sentence, told

_ENDS = (ev.SandboxStopped, ev.SandboxFailed, ev.SandboxLost)
_RUNS = (ev.ExecutionFinished, ev.ExecutionTimedOut, ev.ExecutionLost)


@dataclass(frozen=True, slots=True)
class Explanation:
    """`summary` is one sentence; `chain` the events that led there, oldest first."""

    sandbox_id: str
    summary: str
    chain: tuple[str, ...]
    positions: tuple[int, ...]


def explain(steps: Iterable[Step]) -> Explanation:
    """The explanation of the last state of a replay, which must not be empty."""
    taken = list(steps)
    view = taken[-1].view
    chain = _chain([step.envelope for step in taken])
    return Explanation(
        sandbox_id=view.sandbox_id,
        summary=_summary(taken),
        chain=tuple(told(envelope) for envelope in chain),
        positions=tuple(envelope.position or 0 for envelope in chain),
    )


def _chain(envelopes: list[ev.Envelope]) -> list[ev.Envelope]:
    """The last event that moved the state, what caused it back to its first cause, the beginning, the last run, and
    everything that recovery had to do on the way."""
    by_id = {envelope.event_id: envelope for envelope in envelopes}
    chosen = {envelopes[0].event_id, envelopes[-1].event_id}
    last = _last(envelopes, (*_ENDS, ev.SandboxPaused, ev.SandboxResumed, ev.SandboxStarted))
    cause: ev.Envelope | None = last
    while cause is not None:
        chosen.add(cause.event_id)
        cause = by_id.get(cause.causation_id or "")
    for kinds in (_RUNS, (ev.SandboxExtended,)):
        latest = _last(envelopes, kinds)
        if latest is not None:
            chosen.add(latest.event_id)
    recovery = (ev.OperationTakenOver, ev.DriftObserved, ev.ExecutionLost, ev.PauseFailed, ev.ResumeFailed)
    chosen |= {envelope.event_id for envelope in envelopes if isinstance(envelope.event, recovery)}
    return [envelope for envelope in envelopes if envelope.event_id in chosen]


def _last(envelopes: list[ev.Envelope], kinds: tuple[type[ev.Event], ...]) -> ev.Envelope | None:
    return next((envelope for envelope in reversed(envelopes) if isinstance(envelope.event, kinds)), None)


def _summary(steps: list[Step]) -> str:
    view, envelopes = steps[-1].view, [step.envelope for step in steps]
    name = f"Sandbox '{view.name}' ({view.sandbox_id})"
    if view.pending is not None:
        doing = f"{name} is {view.status}, and its {view.pending.operation} is in flight since "
        return (
            doing + f"attempt {view.pending.attempt}, held by {view.pending.holder} until {at(view.pending.deadline)}."
        )
    if view.status is SandboxState.STOPPED:
        return _why_stopped(name, steps)
    if view.status is SandboxState.PAUSED:
        paused = _last(envelopes, (ev.SandboxPaused,))
        by = f" by {paused.actor} at {at(paused.occurred_at)}" if paused else ""
        return f"{name} is paused{by}; {seconds(view.remaining_seconds or 0)} are left once it is resumed."
    until = f"; without another run it expires at {at(view.expires_at)}" if view.expires_at else ""
    return f"{name} is {view.status}{until}.{_last_run(envelopes)}"


def _why_stopped(name: str, steps: list[Step]) -> str:
    view, envelopes = steps[-1].view, [step.envelope for step in steps]
    end = _last(envelopes, _ENDS)
    if end is None or view.stop_reason is None:
        return f"{name} is stopped."
    asked = _last(envelopes, (ev.StopRequested,))
    by = f" at the request of {asked.actor}" if asked is not None else ""
    text = f"{name} was stopped at {at(end.occurred_at)}{by}"
    if view.stop_reason is not StopReason.USER:
        text += f", because {reason(view.stop_reason)}"
    if view.stop_reason is StopReason.EXPIRED:
        text += f" (time to live {seconds(view.ttl_seconds)})"
    elif view.last_error:
        text += f": {view.last_error}"
    taken = [
        envelope
        for envelope in envelopes
        if isinstance(envelope.event, ev.OperationTakenOver) and envelope.event.operation is Operation.STOP
    ]
    if taken:
        text += f"; {taken[-1].actor} took it over at {at(taken[-1].occurred_at)}"
    return f"{text}.{_last_run(envelopes)}"


def _last_run(envelopes: list[ev.Envelope]) -> str:
    ended = _last(envelopes, _RUNS)
    if ended is None:
        return " It never ran code."
    return f" Last run: {sentence(ended)}, by {ended.actor} at {at(ended.occurred_at)}."
