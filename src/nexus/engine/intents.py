"""Recording that something is to happen to a sandbox, once, whoever else asks for the same at the same moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nexus.domain import commands as cmd
from nexus.domain.errors import SandboxBusy
from nexus.domain.policies import Limits, operation_deadline
from nexus.domain.ports import Clock, Liveness
from nexus.domain.sandbox import Sandbox
from nexus.domain.values import Operation
from nexus.engine.recovery import Recovery
from nexus.engine.streams import Cause, Steps, Streams

_JOIN_POLL = 0.02
"""Seconds between looks at an operation that another process has in flight."""


@dataclass(frozen=True, slots=True)
class Intent:
    """The state with an operation in flight, and the cause to carry it out with; None: nothing has to change."""

    state: Sandbox
    cause: Cause | None
    overtaking: bool = False
    """Another operation was in flight."""


class Intents:
    """Pause, resume and stop as intents; what the effect makes of them is `Effects`'."""

    def __init__(
        self, streams: Streams, recovery: Recovery, liveness: Liveness, clock: Clock, limits: Limits, steps: Steps
    ) -> None:
        self._streams = streams
        self._recovery = recovery
        self._liveness = liveness
        self._clock = clock
        self._limits = limits
        self._step = steps

    def record(
        self,
        state: Sandbox,
        operation: Operation,
        request: Callable[..., cmd.Command],
        cause: Cause,
    ) -> Intent:
        """Record the intent; join the same operation where another process has it in flight."""
        while True:
            deadline = operation_deadline(self._limits, operation, self._streams.store.now())
            try:
                command = request(deadline=deadline, holder=self._liveness.me)
                recorded = self._streams.execute(state.sandbox_id, command, cause)
            except SandboxBusy as busy:
                if busy.details.get("operation") is not operation:
                    raise
                state = self.settled(state, operation)
                continue
            if not recorded.envelopes:
                return Intent(recorded.state, None)
            self._step(f"{operation}.intent")
            return Intent(recorded.state, cause.after(recorded.envelopes[-1]), overtaking=state.pending is not None)

    def settled(self, state: Sandbox, operation: Operation) -> Sandbox:
        """Wait until another's operation has an outcome; take it over once that one is dead or past its deadline."""
        while state.pending is not None and state.pending.operation is operation:
            self._clock.sleep(_JOIN_POLL)
            state = self._recovery.settle(self._streams.get(state.sandbox_id))
        return state
