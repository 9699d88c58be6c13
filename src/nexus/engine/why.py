"""Why a sandbox is in its state: the causal chain to the present, in plain sentences with positions.

Every sentence is made from events alone and names the positions that prove it, so that a reader can look them up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from nexus.domain import events as ev
from nexus.domain.values import Operation, SandboxState, StopReason
from nexus.engine.history import Step
from nexus.projections.narrative import at, reason, seconds, sentence

_ENDS: Final = (ev.SandboxStopped, ev.SandboxFailed, ev.SandboxLost)
_RUNS: Final = (ev.ExecutionFinished, ev.ExecutionTimedOut, ev.ExecutionLost)
_INTENTS: Final[dict[Operation, type[ev.Event]]] = {
    Operation.CREATE: ev.SandboxRequested,
    Operation.PAUSE: ev.PauseRequested,
    Operation.RESUME: ev.ResumeRequested,
    Operation.STOP: ev.StopRequested,
}
_RECOVERY: Final = (ev.OperationTakenOver, ev.DriftObserved, ev.ExecutionLost, ev.PauseFailed, ev.ResumeFailed)


@dataclass(frozen=True, slots=True)
class Explanation:
    """`sentences` say why; `chain` are the events that led there, oldest first, one line each."""

    sandbox_id: str
    sentences: tuple[str, ...]
    chain: tuple[str, ...]
    positions: tuple[int, ...]
    """Of the chain's events."""

    @property
    def summary(self) -> str:
        return " ".join(self.sentences)


def explain(steps: Iterable[Step]) -> Explanation:
    """The explanation of the last state of a replay, which must not be empty."""
    story = _Story(list(steps))
    chain = story.chain()
    return Explanation(
        sandbox_id=story.view.sandbox_id,
        sentences=tuple(story.sentences()),
        chain=tuple(map(story.line, chain)),
        positions=tuple(envelope.position or 0 for envelope in chain),
    )


class _Story:
    """A sandbox's events, and what can be said about them."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self._events = [step.envelope for step in steps]
        self._by_id = {envelope.event_id: envelope for envelope in self._events}
        self.view = steps[-1].view

    # --- the summary -----------------------------------------------------------------------------------------------
    def sentences(self) -> Iterator[str]:
        name = f"Sandbox '{self.view.name}' ({self.view.sandbox_id})"
        if self.view.pending is not None:
            yield from self._in_flight(name)
        elif self.view.status is SandboxState.STOPPED:
            yield from self._stopped(name)
        elif self.view.status is SandboxState.PAUSED:
            yield from self._paused(name)
        else:
            yield from self._active(name)
        for envelope in self._events:
            if isinstance(envelope.event, ev.OperationTakenOver):
                yield self._taken_over(envelope, envelope.event)
        yield self._last_run()

    def _in_flight(self, name: str) -> Iterator[str]:
        pending = self.view.pending
        if pending is None:
            return
        asked = self._last(_INTENTS[pending.operation])
        yield f"{name} is {self.view.status}, and its {pending.operation} is in flight: {_asked(asked)}."
        yield f"Attempt {pending.attempt} is held by {pending.holder} until {at(pending.deadline)}."

    def _stopped(self, name: str) -> Iterator[str]:
        end = self._last(*_ENDS)
        if end is None:
            yield f"{name} is stopped."
            return
        yield f"{name} was stopped at {_when(end)}, because {self._why_stopped(end)}."
        if self.view.stop_reason is StopReason.EXPIRED:
            asked = self._last(ev.StopRequested)
            if asked is not None:
                yield f"{_who(asked)} took the expiry at {_when(asked)}."
        elif self.view.stop_reason is not StopReason.USER:
            yield f"{_who(end)} recorded that."

    def _why_stopped(self, end: ev.Envelope) -> str:
        why = self.view.stop_reason
        if why is StopReason.USER:
            return _asked(self._last(ev.StopRequested))
        if why is StopReason.EXPIRED:
            return self._why_expired()
        text = reason(why) if why is not None else "it ended"
        said = end.event.message if isinstance(end.event, ev.SandboxFailed) else self.view.last_error
        return f"{text}: {said}" if said else text

    def _why_expired(self) -> str:
        asked = self._last(ev.StopRequested)
        before = self._before(asked) if asked is not None else None
        if before is not None and before.view.expires_at is not None:
            return f"its time to live of {seconds(self.view.ttl_seconds)} ran out at {at(before.view.expires_at)}"
        return f"it had been paused until its greatest age of {seconds(self.view.max_age_seconds)} was reached"

    def _paused(self, name: str) -> Iterator[str]:
        paused = self._last(ev.SandboxPaused)
        left = f"{seconds(self.view.remaining_seconds or 0)} are left once it is resumed"
        since = f" since {_when(paused)}" if paused is not None else ""
        yield f"{name} is paused{since}, because {_asked(self._last(ev.PauseRequested))}; {left}."

    def _active(self, name: str) -> Iterator[str]:
        came = self._last(ev.SandboxStarted, ev.SandboxResumed)
        since, asked = "", None
        if came is not None:
            since = f" since {_when(came)}"
            resumed = isinstance(came.event, ev.SandboxResumed)
            asked = self._last(ev.ResumeRequested if resumed else ev.SandboxRequested)
        until = f"; without another run it expires at {at(self.view.expires_at)}" if self.view.expires_at else ""
        yield f"{name} is active{since}, because {_asked(asked)}{until}."

    def _taken_over(self, envelope: ev.Envelope, event: ev.OperationTakenOver) -> str:
        asked = self._last(_INTENTS[event.operation], before=envelope)
        by = f" that {asked.actor} had asked for from {asked.origin} at {_when(asked)}" if asked is not None else ""
        came = self._after(envelope)
        if came is None:
            end = "it is in flight still"
        elif isinstance(came.event, ev.OperationTakenOver):
            end = "that was left unfinished in its turn"
        else:
            end = f"what came of it: {sentence(came)} (#{came.position})"
        return (
            f"The {event.operation}{by} was left unfinished; {_who(envelope)} took it over at {_when(envelope)}, "
            f"because {self._why_taken_over(envelope)}; {end}."
        )

    def _why_taken_over(self, envelope: ev.Envelope) -> str:
        """A take-over is allowed past the deadline, or with proof that the holder is dead: there is no third way."""
        before = self._before(envelope)
        deadline = before.view.pending.deadline if before is not None and before.view.pending is not None else None
        if deadline is not None and envelope.occurred_at >= deadline:
            return f"its deadline of {at(deadline)} had passed"
        return "the process that carried it out was gone"

    def _last_run(self) -> str:
        ended = self._last(*_RUNS)
        running = self._last(ev.ExecutionStarted)
        if running is None:
            return "It never ran code."
        if ended is None or _run_of(ended) != _run_of(running):
            return f"Last run: {_who(running)} {sentence(running)} at {_when(running)}; it has no outcome yet."
        return (
            f"Last run: {_who(running)} started it at {_when(running)}; {sentence(ended)}, "
            f"as {_who(ended)} recorded at {_when(ended)}."
        )

    # --- the chain -------------------------------------------------------------------------------------------------
    def chain(self) -> list[ev.Envelope]:
        """The last event that moved the state, what caused it back to its first cause, the beginning, the last run,
        and everything that recovery had to do on the way, each with what it was caused by."""
        wanted = [
            self._events[0],
            self._events[-1],
            self._last(*_ENDS, ev.SandboxPaused, ev.SandboxResumed, ev.SandboxStarted),
            self._last(*_RUNS),
            self._last(ev.SandboxExtended),
            *(envelope for envelope in self._events if isinstance(envelope.event, _RECOVERY)),
            *(self._after(envelope) for envelope in self._events if isinstance(envelope.event, ev.OperationTakenOver)),
        ]
        chosen: set[str] = set()
        for envelope in wanted:
            while envelope is not None and envelope.event_id not in chosen:
                chosen.add(envelope.event_id)
                envelope = self._by_id.get(envelope.causation_id or "")
        return [envelope for envelope in self._events if envelope.event_id in chosen]

    def line(self, envelope: ev.Envelope) -> str:
        """One event: position, time, who, from where, what, and the position of what led to it."""
        cause = self._by_id.get(envelope.causation_id or "")
        event = envelope.event
        if isinstance(event, ev.OperationTakenOver):
            what = f"took over the {event.operation}, because {self._why_taken_over(envelope)}"
        else:
            what = sentence(envelope)
        because = f" (led to by #{cause.position})" if cause is not None else ""
        return f"#{envelope.position} {at(envelope.occurred_at)} {_who(envelope)}: {what}{because}"

    # --- finding -----------------------------------------------------------------------------------------------------
    def _last(self, *kinds: type[ev.Event], before: ev.Envelope | None = None) -> ev.Envelope | None:
        upto = len(self._events) if before is None else self._events.index(before)
        return next((one for one in reversed(self._events[:upto]) if isinstance(one.event, kinds)), None)

    def _after(self, envelope: ev.Envelope) -> ev.Envelope | None:
        return next((one for one in self._events if one.causation_id == envelope.event_id), None)

    def _before(self, envelope: ev.Envelope) -> Step | None:
        place = self._events.index(envelope)
        return self._steps[place - 1] if place else None


def _run_of(envelope: ev.Envelope) -> str | None:
    return getattr(envelope.event, "execution_id", None)


def _who(envelope: ev.Envelope) -> str:
    return f"{envelope.actor} from {envelope.origin}"


def _when(envelope: ev.Envelope) -> str:
    return f"{at(envelope.occurred_at)} (#{envelope.position})"


def _asked(envelope: ev.Envelope | None) -> str:
    return "nobody asked for it" if envelope is None else f"{_who(envelope)} asked for it at {_when(envelope)}"
