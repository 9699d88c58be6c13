"""Faults planted into the engine, one at a time: the simulation must find every one of them.

Each is a mistake that somebody could make, as a patch of the real code.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, Final
from unittest.mock import patch

from nexus.domain import commands as cmd
from nexus.domain import decisions
from nexus.domain import events as ev
from nexus.domain import sandbox as aggregate
from nexus.domain.errors import ProviderError, ProviderOutcomeUnknown, SandboxBusy, StreamConflict
from nexus.domain.sandbox import Sandbox
from nexus.domain.values import SandboxState
from nexus.engine import refusals
from nexus.engine.creation import Creation
from nexus.engine.effects import Effects, ref_of
from nexus.engine.executions import Executions
from nexus.engine.reconcile import Reconciler
from nexus.engine.recovery import Recovery, Report
from nexus.engine.refusals import Refusals
from nexus.engine.streams import Cause, Recorded, Streams
from nexus.projections import inline
from tests.simulation.ports import OURS, STRANGERS, SimProvider

Fault = Callable[[], AbstractContextManager[Any]]
FAULTS: Final[dict[str, Fault]] = {}


def fault(function: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
    FAULTS[function.__name__] = contextmanager(function)
    return function


def _decision(command: type[cmd.Command], wrong: Callable[..., list[ev.Event]]) -> AbstractContextManager[Any]:
    return patch.dict(decisions._DECIDE, {command: wrong})


# --- rules ----------------------------------------------------------------------------------------------------------
@fault
def outcomes_are_not_fenced() -> Iterator[None]:
    def any_attempt(state: Sandbox, _command: cmd.Outcome, operation: object) -> Any:
        if state.pending is None:
            raise decisions.Superseded("no operation")
        return state.pending

    with patch.object(decisions, "_my_attempt", any_attempt):
        yield


@fault
def expiry_ignores_open_runs() -> Iterator[None]:
    def expired(self: Sandbox, now: datetime) -> bool:
        return self.state is SandboxState.ACTIVE and self.expires_at is not None and now >= self.expires_at

    with patch.object(Sandbox, "is_expired", expired):
        yield


@fault
def expiry_forgets_to_look_at_the_time() -> Iterator[None]:
    with patch.object(Sandbox, "is_expired", lambda self, now: self.state is SandboxState.ACTIVE):
        yield


@fault
def pause_ignores_open_runs() -> Iterator[None]:
    with patch.object(decisions, "_no_open_run", lambda state, now: None):
        yield


@fault
def a_run_may_shorten_the_time_to_live() -> Iterator[None]:
    with patch.object(decisions, "_later", lambda state, moment: moment):
        yield


@fault
def operations_in_flight_are_ignored() -> Iterator[None]:
    with patch.object(decisions, "_nothing_in_flight", lambda state, trigger: None):
        yield


@fault
def a_stop_leaves_runs_open() -> Iterator[None]:
    with patch.object(decisions, "_runs_lost", lambda state, reason: []):
        yield


@fault
def a_time_out_is_recorded_as_a_finish() -> Iterator[None]:
    right = decisions._DECIDE[cmd.FinishExecution]

    def wrong(command: cmd.FinishExecution, state: Sandbox, now: datetime) -> list[ev.Event]:
        result = dataclasses.replace(command.result, timed_out=False)
        return right(dataclasses.replace(command, result=result), state, now)

    with _decision(cmd.FinishExecution, wrong):
        yield


@fault
def a_stopped_sandbox_can_be_lost() -> Iterator[None]:
    def wrong(command: cmd.RecordLost, _state: Sandbox, _now: datetime) -> list[ev.Event]:
        return [ev.SandboxLost(detail=command.detail)]

    with _decision(cmd.RecordLost, wrong):
        yield


# --- folding and reading --------------------------------------------------------------------------------------------
@fault
def an_ended_run_stays_open() -> Iterator[None]:
    with patch.dict(aggregate.APPLY, {ev.ExecutionFinished: lambda state, event, at: None}):
        yield


@fault
def the_view_misses_the_stop() -> Iterator[None]:
    right = inline.rows
    with patch.object(
        inline, "rows", lambda state, *more: [] if state.state is SandboxState.STOPPED else right(state, *more)
    ):
        yield


@fault
def a_cached_state_is_not_brought_up_to_date() -> Iterator[None]:
    right = Streams.load

    def stale(self: Streams, sandbox_id: str) -> Sandbox | None:
        cached = self._cache.get(sandbox_id)
        return copy.copy(cached) if cached is not None else right(self, sandbox_id)

    with patch.object(Streams, "load", stale):
        yield


# --- the protocol ---------------------------------------------------------------------------------------------------
@fault
def a_conflict_repeats_the_insert_instead_of_the_decision() -> Iterator[None]:
    right = Streams._append

    def insist(self: Streams, state: Sandbox, events: Any, cause: Any, now: datetime, *rows: Any) -> Recorded:
        while True:
            try:
                return right(self, state, events, cause, now, *rows)
            except StreamConflict:
                state = self.get(state.sandbox_id)

    with patch.object(Streams, "_append", insist):
        yield


@fault
def a_run_with_an_unknown_outcome_is_tried_again() -> Iterator[None]:
    right = SimProvider.run

    def again(self: SimProvider, *given: Any) -> Any:
        try:
            return right(self, *given)
        except ProviderOutcomeUnknown:
            return right(self, *given)

    with patch.object(SimProvider, "run", again):
        yield


@fault
def the_resource_is_made_before_the_intent() -> Iterator[None]:
    def begin(
        self: Streams, sandbox_id: str, events: Any, beside: Any, cause: Any, now: datetime, *rows: Any
    ) -> Recorded:
        state = aggregate.created(events[0], now)
        effects = _effects[0]
        effects.provider(state).ensure(effects.spec(state, 1, now))
        return right_begin(self, sandbox_id, events, beside, cause, now, *rows)

    right_begin = Streams.begin
    with _remember_effects() as _effects, patch.object(Streams, "begin", begin):
        yield


@contextmanager
def _remember_effects() -> Iterator[list[Effects]]:
    made: list[Effects] = []
    right = Effects.__init__

    def init(self: Effects, *given: Any, **more: Any) -> None:
        right(self, *given, **more)
        made[:] = [self]

    with patch.object(Effects, "__init__", init):
        yield made


@fault
def the_resource_is_destroyed_before_the_intent() -> Iterator[None]:
    from nexus.engine.service import Engine

    right = Engine.stop

    def eager(self: Engine, principal: Any, reference: str) -> Any:
        state = self._own(principal, reference, "stop")  # type: ignore[arg-type]
        if state.ref is not None:
            self._effects.provider(state).destroy(ref_of(state))
        return right(self, principal, reference)

    with patch.object(Engine, "stop", eager):
        yield


@fault
def the_name_is_not_checked() -> Iterator[None]:
    with patch.object(Creation, "_require_stopped", lambda self, holder, wanted: None):
        yield


@fault
def the_key_is_not_looked_up() -> Iterator[None]:
    right = Creation._try
    with patch.object(Creation, "_try", lambda self, wanted, key, cause: right(self, wanted, None, cause)):
        yield


@fault
def a_late_creator_destroys_what_another_adopted() -> Iterator[None]:
    def started(self: Effects, state: Sandbox, provider: Any, attempt: int, cause: Any, observed: Any) -> Sandbox:
        command = cmd.RecordStarted(attempt=attempt, ref=observed.ref.to_json(), incarnation=observed.incarnation)
        try:
            return self._streams.execute(state.sandbox_id, command, cause).state
        except decisions.Superseded:
            provider.destroy(observed.ref)
            raise

    with patch.object(Effects, "_started", started):
        yield


@fault
def a_refusal_is_told_after_recording() -> Iterator[None]:
    right = Executions.run

    def wrong(self: Executions, *given: Any) -> Any:
        execution = right(self, *given)
        if self._streams.store.head() % 5 == 0:
            raise SandboxBusy("told busy, although it ran")
        return execution

    with patch.object(Executions, "run", wrong):
        yield


# --- recovery -------------------------------------------------------------------------------------------------------
@fault
def nobody_takes_over() -> Iterator[None]:
    with patch.object(Recovery, "_take_over", lambda self, state, **_more: state):
        yield


@fault
def lost_runs_are_forgotten() -> Iterator[None]:
    def forget(self: Executions, state: Sandbox, execution_id: str, reason: str, cause: Any) -> Sandbox:
        return state

    with patch.object(Executions, "lose", forget):
        yield


@fault
def nobody_expires() -> Iterator[None]:
    with patch.object(Recovery, "_expire", lambda self, state, cause, report: state):
        yield


@fault
def orphans_stay() -> Iterator[None]:
    with patch.object(Reconciler, "_orphans", lambda self, provider, report: None):
        yield


@fault
def strangers_are_taken_for_orphans() -> Iterator[None]:
    right = SimProvider.owned
    with patch.object(
        SimProvider, "owned", lambda self, installation: iter([*right(self, OURS), *right(self, STRANGERS)])
    ):
        yield


@fault
def orphans_are_judged_by_an_old_reading() -> Iterator[None]:
    def wrong(self: Reconciler, provider: Any, _report: Report) -> None:
        known = set(self._queries.live())
        for seen in list(provider.owned(OURS)):
            if seen.sandbox_id not in known:
                provider.destroy(seen.ref)

    with patch.object(Reconciler, "_orphans", wrong):
        yield


@fault
def an_outage_counts_as_gone() -> Iterator[None]:
    right = SimProvider.inspect

    def wrong(self: SimProvider, ref: Any) -> Any:
        try:
            return right(self, ref)
        except ProviderError:
            from nexus.domain.provider import Observed

            return Observed(ref=ref, sandbox_id=ref.data["sandbox_id"], condition="gone")

    with patch.object(SimProvider, "inspect", wrong):
        yield


@fault
def ghosts_stay() -> Iterator[None]:
    with patch.object(Reconciler, "verify", lambda self, state, report: state):
        yield


@fault
def drift_is_noted_and_left() -> Iterator[None]:
    with patch.object(Reconciler, "_put_right", lambda self, state, provider, seen, report: state):
        yield


@fault
def a_stop_is_never_concluded() -> Iterator[None]:
    def wrong(self: Effects, state: Sandbox, cause: Any, *, thorough: bool) -> Sandbox:
        if state.ref is not None:
            self.provider(state).destroy(ref_of(state))
        return state

    with patch.object(Effects, "stop", wrong):
        yield


# --- refusals -------------------------------------------------------------------------------------------------------
@fault
def refusals_are_not_recorded() -> Iterator[None]:
    with patch.object(Refusals, "_record", lambda *_: None):
        yield


@fault
def every_error_counts_as_a_refusal() -> Iterator[None]:
    with patch.object(refusals, "is_refusal", lambda _error: True):
        yield


@fault
def refusals_go_into_one_stream() -> Iterator[None]:
    def together(self: Streams, kind: str, event: ev.Event, cause: Any) -> None:
        last = self.store.last(kind)
        version = last.originator_version + 1 if last is not None else 1
        self.store.append([self.envelope(kind, version, event, cause, self.store.now())])

    with patch.object(Streams, "alone", together):
        yield


@fault
def a_take_over_begins_a_story_of_its_own() -> Iterator[None]:
    def alone(_self: Streams, _state: Sandbox, principal: Any, command: str, _begun: Any) -> Cause:
        return Cause.of(principal, command)

    with patch.object(Streams, "story", alone):
        yield
