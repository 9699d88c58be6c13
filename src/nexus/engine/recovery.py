"""Settling what is due: expiry, runs past their lease, operations whose holder is gone.

Level-triggered: it compares what should be with what is, and may run anywhere, any number of times, in any number of
processes. The stream's version is the only lock: whoever appended the take-over carries it on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from nexus.domain import commands as cmd
from nexus.domain import events as ev
from nexus.domain.decisions import Superseded
from nexus.domain.errors import NexusError, StreamConflict
from nexus.domain.policies import Limits, operation_deadline
from nexus.domain.ports import Liveness
from nexus.domain.sandbox import Sandbox
from nexus.domain.values import Operation, SandboxState, system_principal
from nexus.engine.effects import Effects
from nexus.engine.executions import Executions
from nexus.engine.streams import Cause, Streams
from nexus.projections.queries import SandboxQueries


@dataclass
class Report:
    """What a sweep or a reconcile did, as lists of sandbox ids (or resources), and what it could not do."""

    expired: list[str] = field(default_factory=list)
    taken_over: list[str] = field(default_factory=list)
    runs_lost: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    drifted: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    pool: list[str] = field(default_factory=list)
    """Members of the warm pool that were made or removed, in words."""
    bodies_erased: list[str] = field(default_factory=list)
    """Sandboxes of which kept code and output had been kept for as long as the settings say."""
    problems: list[str] = field(default_factory=list)

    def met(self, what: str, error: NexusError) -> None:
        """A problem in words, and what to do about it."""
        advice = f". {error.hint}" if error.hint else ""
        self.problems.append(f"{what}: {error.message}{advice}")

    def to_dict(self) -> dict[str, list[str]]:
        return {name: list(getattr(self, name)) for name in self.__dataclass_fields__}


_SETTLE: Final = "settle"
_ATTEMPTS: Final = (
    ev.SandboxRequested, ev.PauseRequested, ev.ResumeRequested, ev.StopRequested, ev.OperationTakenOver,
)  # fmt: skip
"""What gives out an attempt at an operation."""


class Recovery:
    """Carries on what others left behind."""

    def __init__(
        self,
        streams: Streams,
        effects: Effects,
        executions: Executions,
        queries: SandboxQueries,
        liveness: Liveness,
        limits: Limits,
    ) -> None:
        self._streams = streams
        self._effects = effects
        self._executions = executions
        self._queries = queries
        self._liveness = liveness
        self._limits = limits

    def sweep(self, report: Report | None = None, *, limit: int = 1000) -> Report:
        """Settle every sandbox that is due, and every one whose operation or run is held by a dead process."""
        report = report if report is not None else Report()
        for sandbox_id in self.due(limit):
            self.look_at(sandbox_id, report)
        return report

    def due(self, limit: int = 1000) -> list[str]:
        """Sandboxes that somebody has to look at now, the longest due first, then those with something in flight."""
        due = self._queries.due(self._streams.store.now(), limit)
        return list(dict.fromkeys([*due, *self._queries.in_flight(limit)]))

    def look_at(self, sandbox_id: str, report: Report) -> None:
        """Settle one sandbox; what could not be done is in the report. Thread-safe, and so is the report."""
        try:
            self.settle(self._streams.get(sandbox_id), report)
        except NexusError as error:
            report.problems.append(f"{sandbox_id}: {error.message}")

    def settle(self, state: Sandbox, report: Report | None = None) -> Sandbox:
        """Bring one sandbox up to date with time: lost runs, abandoned operations, expiry.

        What is carried on stays in the story of whoever began it; an expiry is a story of its own.
        """
        if state.state is SandboxState.STOPPED:
            return state
        report = report if report is not None else Report()
        now = self._streams.store.now()
        for run in state.executions.values():
            if run.lease_until <= now:
                reason = "its lease ran out without an outcome"
            elif self._liveness.is_dead(run.holder):
                reason = "the process that ran it is gone"
            else:
                continue
            begun = partial(_is_start, run.execution_id)
            state = self._executions.lose(state, run.execution_id, reason, self._story(state, begun))
            report.runs_lost.append(run.execution_id)
        if state.pending is not None:
            dead = self._liveness.is_dead(state.pending.holder)
            if dead or state.pending.deadline <= now:
                state = self._take_over(state, dead=dead, report=report)
        if state.pending is None and state.is_expired(now):
            cause = Cause.of(system_principal("recovery", state.tenant_id), _SETTLE)
            state = self._expire(state, cause, report)
        return state

    def _story(self, state: Sandbox, begun: Callable[[ev.Event], bool]) -> Cause:
        return self._streams.story(state, system_principal("recovery", state.tenant_id), _SETTLE, begun)

    def _take_over(self, state: Sandbox, *, dead: bool, report: Report) -> Sandbox:
        if state.pending is None:
            return state
        operation = state.pending.operation
        now = self._streams.store.now()
        cause = self._story(state, partial(_is_attempt, state.pending.attempt))
        command = cmd.TakeOver(
            deadline=operation_deadline(self._limits, operation, now), holder=self._liveness.me, holder_is_dead=dead
        )
        try:
            recorded = self._streams.execute(state.sandbox_id, command, cause, expected=state.version)
        except StreamConflict:
            return self._streams.get(state.sandbox_id)  # somebody else moved on: theirs
        if not recorded.envelopes:
            return recorded.state
        report.taken_over.append(state.sandbox_id)
        cause = cause.after(recorded.envelopes[-1])
        try:
            return self._carry_on(recorded.state, operation, cause)
        except Superseded:
            return self._streams.get(state.sandbox_id)

    def _carry_on(self, state: Sandbox, operation: Operation, cause: Cause) -> Sandbox:
        if operation is Operation.CREATE:
            return self._effects.adopt(state, cause)
        if operation is Operation.PAUSE:
            return self._effects.pause(state, cause)
        if operation is Operation.RESUME:
            return self._effects.resume(state, cause)
        return self._effects.stop(state, cause, thorough=True)

    def _expire(self, state: Sandbox, cause: Cause, report: Report) -> Sandbox:
        now = self._streams.store.now()
        command = cmd.ExpireSandbox(
            deadline=operation_deadline(self._limits, Operation.STOP, now), holder=self._liveness.me
        )
        recorded = self._streams.execute(state.sandbox_id, command, cause)
        if not recorded.envelopes:
            return recorded.state
        report.expired.append(state.sandbox_id)
        return self._effects.stop(recorded.state, cause.after(recorded.envelopes[-1]), thorough=False)


def _is_start(execution_id: str, event: ev.Event) -> bool:
    return isinstance(event, ev.ExecutionStarted) and event.execution_id == execution_id


def _is_attempt(attempt: int, event: ev.Event) -> bool:
    """Whether this event gave out the attempt: the intent, or an earlier take-over of it."""
    return isinstance(event, _ATTEMPTS) and event.attempt == attempt
