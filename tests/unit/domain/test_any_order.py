"""No order of commands, at no times, leads anywhere that the machine does not."""

from __future__ import annotations

import copy
import dataclasses
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from nexus.domain import commands as cmd
from nexus.domain import encoding
from nexus.domain import events as ev
from nexus.domain.decisions import decide
from nexus.domain.errors import NexusError
from nexus.domain.lifecycle import TABLE
from nexus.domain.sandbox import Sandbox, fold
from nexus.domain.values import Operation, SandboxState
from tests.unit.domain.story import START, envelope, every_command, leaves, requested
from tests.unit.domain.test_lifecycle import EVENT_OF_TRIGGER

TRIGGER_OF_EVENT = {kind: trigger for trigger, kind in EVENT_OF_TRIGGER.items()}
IN_FLIGHT_IN: dict[SandboxState, set[Operation | None]] = {
    SandboxState.CREATING: {Operation.CREATE, Operation.STOP},
    SandboxState.ACTIVE: {None, Operation.PAUSE, Operation.STOP},
    SandboxState.PAUSED: {None, Operation.RESUME, Operation.STOP},
    SandboxState.STOPPED: {None},
}
INTENTS = (ev.SandboxRequested, ev.PauseRequested, ev.ResumeRequested, ev.StopRequested, ev.OperationTakenOver)
ENDS = (ev.SandboxStopped, ev.SandboxFailed, ev.SandboxLost)
KINDS = sorted(leaves(cmd.Command) - {cmd.RequestSandbox}, key=str)


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[type[cmd.Command], int, int, int, int]]:
    """Command, seconds since the last one, how stale its attempt is, which run it is about, how long it may take."""
    step = st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from((0, 1, 20, 61, 200, 700, 4000)),
        st.sampled_from((0, 0, 0, 0, 1, -1)),
        st.integers(0, 3),
        st.sampled_from((0, 30, 300, 5000)),
    )
    return draw(st.lists(step, min_size=1, max_size=40))


def command_of(kind: type[cmd.Command], state: Sandbox, attempt: int, run: int, seconds: int) -> cmd.Command:
    """The command as a caller would make it at this time."""
    command = every_command(attempt=attempt, execution_id=f"ex_{run}")[kind]
    until = START + timedelta(seconds=seconds)
    if isinstance(command, cmd.StartExecution):
        return dataclasses.replace(command, execution_id=f"ex_{state.runs}", lease_until=until)
    if isinstance(command, cmd.RequestPause | cmd.RequestResume | cmd.RequestStop | cmd.ExpireSandbox | cmd.TakeOver):
        return dataclasses.replace(command, deadline=until)
    if isinstance(command, cmd.ExtendSandbox):
        return dataclasses.replace(command, seconds=1 + run * 500)
    return command


def check_event(event: ev.Event, before: Sandbox, after: Sandbox) -> None:
    """Only edges of the machine change a state; only the events that stand for an edge do so."""
    trigger = TRIGGER_OF_EVENT.get(type(event))
    if trigger is None:
        assert after.state is before.state
    else:
        assert after.state is TABLE[trigger, before.state], "an event that no edge allows"
    if before.state is SandboxState.STOPPED:
        assert isinstance(event, ev.DriftObserved | ev.BodiesErased), "stopped is final"


def check_state(state: Sandbox) -> None:
    assert (state.pending.operation if state.pending else None) in IN_FLIGHT_IN[state.state]
    if state.pending is not None:
        assert state.pending.attempt == state.attempt, "the operation in flight holds the newest fencing token"
    assert (state.due_at() is None) == (state.state is SandboxState.STOPPED), "somebody always looks again"
    match state.state:
        case SandboxState.ACTIVE:
            assert state.expires_at is not None
            assert state.remaining_seconds is None
        case SandboxState.PAUSED:
            assert state.expires_at is None
            assert state.remaining_seconds is not None
            assert state.remaining_seconds >= 0
        case SandboxState.STOPPED:
            assert state.executions == {}
            assert state.stop_reason is not None
            assert state.stopped_at is not None
        case SandboxState.CREATING:
            assert state.executions == {}
            assert state.runs == 0


def check_history(log: list[ev.Envelope]) -> None:
    started: list[str] = []
    ended: list[str] = []
    attempts: list[int] = []
    for entry in log:
        event = entry.event
        if isinstance(event, ev.ExecutionStarted):
            started.append(event.execution_id)
        elif isinstance(event, ev.ExecutionFinished | ev.ExecutionTimedOut | ev.ExecutionLost):
            ended.append(event.execution_id)
        elif isinstance(event, INTENTS):
            attempts.append(event.attempt)
    assert len(set(started)) == len(started), "an execution id starts once"
    assert len(set(ended)) == len(ended), "a run has one outcome"
    assert set(ended) <= set(started)
    assert attempts == list(range(1, len(attempts) + 1)), "attempt numbers are given out one by one"
    ends = [entry.event for entry in log if isinstance(entry.event, ENDS)]
    assert len(ends) <= 1
    if ends:
        assert set(ended) == set(started), "whatever was open at the end has an outcome"


@settings(max_examples=400, deadline=None)
@given(steps())
def test_no_order_of_commands_leads_astray(script: list[tuple[type[cmd.Command], int, int, int, int]]) -> None:
    clock = 0
    log = [envelope(requested(), 1)]
    state = fold(None, log)
    assert state is not None
    for kind, wait, stale, run, lasts in script:
        clock += wait
        now = START + timedelta(seconds=clock)
        command = command_of(kind, state, state.attempt - stale, run, clock + lasts)
        before = copy.deepcopy(state)
        try:
            events = decide(command, state, now)
        except NexusError:
            assert state == before, "a refusal changed the state"
            continue
        for event in events:
            earlier = copy.deepcopy(state)
            log.append(envelope(event, len(log) + 1, now))
            state = fold(state, log[-1:])
            assert state is not None
            check_event(event, earlier, state)
            assert encoding.decode(event.TOPIC, event.VERSION, encoding.encode(event)) == event
            if earlier.state is state.state is SandboxState.ACTIVE and earlier.expires_at is not None:
                assert state.expires_at is not None
                assert state.expires_at >= earlier.expires_at, "time to live was shortened"
        check_state(state)
    check_history(log)
    assert fold(None, log) == state, "a replay says something else"
