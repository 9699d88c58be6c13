"""Every command in every situation: legal, idempotent or refused. A new command or situation fails here first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from nexus.domain import commands as cmd
from nexus.domain import events as ev
from nexus.domain.decisions import Superseded, decide
from nexus.domain.errors import Conflict, IllegalTransition, NexusError, SandboxBusy
from nexus.domain.sandbox import Sandbox
from tests.unit.domain.story import (
    SANDBOX,
    Situation,
    at,
    every_command,
    folded,
    given,
    leaves,
    pause_requested,
    paused,
    requested,
    resume_requested,
    run_started,
    situation,
    started,
    stop_requested,
    stopped,
    when,
)

NOW = 11.0
"""Minutes: the time to live is over, and so are the deadlines of what is in flight."""

LIVE = run_started("ex_live", lease=60)
STALE = run_started("ex_stale", lease=5)

SITUATIONS: dict[str, Sandbox | None] = {
    "none": None,
    "creating+create": given(requested()),
    "creating+stop": given(requested(), stop_requested()),
    "active": given(requested(), started()),
    "active+live": given(requested(), started(), LIVE),
    "active+stale": given(requested(), started(), STALE),
    "active+live+stale": given(requested(), started(), LIVE, STALE),
    "active+pause": given(requested(), started(), pause_requested()),
    "active+pause+stale": given(requested(), started(), STALE, pause_requested()),
    "active+stop": given(requested(), started(), stop_requested()),
    "active+stop+live": given(requested(), started(), LIVE, stop_requested()),
    "active+stop+stale": given(requested(), started(), STALE, stop_requested()),
    "active+stop+live+stale": given(requested(), started(), LIVE, STALE, stop_requested()),
    "paused": given(requested(), started(), pause_requested(), paused()),
    "paused+stale": given(requested(), started(), STALE, pause_requested(), paused()),
    "paused+resume": given(requested(), started(), pause_requested(), paused(), resume_requested()),
    "paused+resume+stale": given(requested(), started(), STALE, pause_requested(), paused(), resume_requested()),
    "paused+stop": given(requested(), started(), pause_requested(), paused(), stop_requested(attempt=3)),
    "paused+stop+stale": given(requested(), started(), STALE, pause_requested(), paused(), stop_requested(attempt=3)),
    "stopped": given(requested(), started(), stop_requested(), stopped()),
}

Outcome = tuple[type[ev.Event], ...] | type[Exception]
NOTHING: Outcome = ()
CREATING = "creating+create creating+stop"
RUNNING = "active active+live active+stale active+live+stale"
PAUSING = "active+pause active+pause+stale"
STOPPING = "active+stop active+stop+live active+stop+stale active+stop+live+stale"
PAUSED = "paused paused+stale"
RESUMING = "paused+resume paused+resume+stale"
STOPPING_PAUSED = "paused+stop paused+stop+stale"

EVERYWHERE = f"{CREATING} {RUNNING} {PAUSING} {STOPPING} {PAUSED} {RESUMING} {STOPPING_PAUSED} stopped"

MATRIX: dict[type[cmd.Command], dict[Outcome, str]] = {
    cmd.RequestSandbox: {
        (ev.SandboxRequested,): "none",
        Conflict: EVERYWHERE,
    },
    cmd.StartExecution: {
        ValueError: "none",
        (ev.ExecutionStarted,): RUNNING,
        SandboxBusy: f"{PAUSING} {STOPPING}",
        IllegalTransition: f"{CREATING} {PAUSED} {RESUMING} {STOPPING_PAUSED} stopped",
    },
    cmd.RequestPause: {
        ValueError: "none",
        (ev.PauseRequested,): "active active+stale",
        NOTHING: PAUSED,
        SandboxBusy: f"active+live active+live+stale {PAUSING} {STOPPING} {RESUMING} {STOPPING_PAUSED}",
        IllegalTransition: f"{CREATING} stopped",
    },
    cmd.RequestResume: {
        ValueError: "none",
        (ev.ResumeRequested,): PAUSED,
        NOTHING: RUNNING,
        SandboxBusy: f"{PAUSING} {STOPPING} {RESUMING} {STOPPING_PAUSED}",
        IllegalTransition: f"{CREATING} stopped",
    },
    cmd.ExtendSandbox: {
        ValueError: "none",
        (ev.SandboxExtended,): f"{RUNNING} {PAUSED}",
        SandboxBusy: f"{PAUSING} {STOPPING} {RESUMING} {STOPPING_PAUSED}",
        IllegalTransition: f"{CREATING} stopped",
    },
    cmd.RequestStop: {
        ValueError: "none",
        (ev.StopRequested,): f"creating+create {RUNNING} {PAUSING} {PAUSED} {RESUMING}",
        SandboxBusy: f"creating+stop {STOPPING} {STOPPING_PAUSED}",
        NOTHING: "stopped",
    },
    cmd.ExpireSandbox: {
        ValueError: "none",
        (ev.StopRequested,): "active active+stale",
        NOTHING: (
            f"{CREATING} active+live active+live+stale {PAUSING} {STOPPING} {PAUSED} {RESUMING} {STOPPING_PAUSED}"
            " stopped"
        ),
    },
    cmd.RecordStarted: {
        ValueError: "none",
        (ev.SandboxStarted,): "creating+create",
        Superseded: f"creating+stop {RUNNING} {PAUSING} {STOPPING} {PAUSED} {RESUMING} {STOPPING_PAUSED} stopped",
    },
    cmd.RecordFailed: {
        ValueError: "none",
        (ev.SandboxFailed,): "creating+create",
        Superseded: f"creating+stop {RUNNING} {PAUSING} {STOPPING} {PAUSED} {RESUMING} {STOPPING_PAUSED} stopped",
    },
    cmd.RecordPaused: {
        ValueError: "none",
        (ev.SandboxPaused,): PAUSING,
        Superseded: f"{CREATING} {RUNNING} {STOPPING} {PAUSED} {RESUMING} {STOPPING_PAUSED} stopped",
    },
    cmd.RecordPauseFailed: {
        ValueError: "none",
        (ev.PauseFailed,): PAUSING,
        Superseded: f"{CREATING} {RUNNING} {STOPPING} {PAUSED} {RESUMING} {STOPPING_PAUSED} stopped",
    },
    cmd.RecordResumed: {
        ValueError: "none",
        (ev.SandboxResumed,): RESUMING,
        Superseded: f"{CREATING} {RUNNING} {PAUSING} {STOPPING} {PAUSED} {STOPPING_PAUSED} stopped",
    },
    cmd.RecordResumeFailed: {
        ValueError: "none",
        (ev.ResumeFailed,): RESUMING,
        Superseded: f"{CREATING} {RUNNING} {PAUSING} {STOPPING} {PAUSED} {STOPPING_PAUSED} stopped",
    },
    cmd.RecordStopped: {
        ValueError: "none",
        (ev.SandboxStopped,): "creating+stop active+stop paused+stop",
        (ev.ExecutionLost, ev.SandboxStopped): "active+stop+live active+stop+stale paused+stop+stale",
        (ev.ExecutionLost, ev.ExecutionLost, ev.SandboxStopped): "active+stop+live+stale",
        Superseded: f"creating+create {RUNNING} {PAUSING} {PAUSED} {RESUMING} stopped",
    },
    cmd.FinishExecution: {
        ValueError: "none",
        (ev.ExecutionFinished,): (
            "active+live active+stale active+live+stale active+pause+stale active+stop+live active+stop+stale"
            " active+stop+live+stale paused+stale paused+resume+stale paused+stop+stale"
        ),
        Superseded: f"{CREATING} active active+pause active+stop paused paused+resume paused+stop stopped",
    },
    cmd.LoseExecution: {
        ValueError: "none",
        (ev.ExecutionLost,): (
            "active+live active+stale active+live+stale active+pause+stale active+stop+live active+stop+stale"
            " active+stop+live+stale paused+stale paused+resume+stale paused+stop+stale"
        ),
        NOTHING: f"{CREATING} active active+pause active+stop paused paused+resume paused+stop stopped",
    },
    cmd.TakeOver: {
        ValueError: "none",
        (ev.OperationTakenOver,): f"{CREATING} {PAUSING} {STOPPING} {RESUMING} {STOPPING_PAUSED}",
        NOTHING: f"{RUNNING} {PAUSED} stopped",
    },
    cmd.RecordLost: {
        ValueError: "none",
        (ev.SandboxLost,): f"{CREATING} active active+pause active+stop paused paused+resume paused+stop",
        (ev.ExecutionLost, ev.SandboxLost): (
            "active+live active+stale active+pause+stale active+stop+live active+stop+stale"
            " paused+stale paused+resume+stale paused+stop+stale"
        ),
        (ev.ExecutionLost, ev.ExecutionLost, ev.SandboxLost): "active+live+stale active+stop+live+stale",
        NOTHING: "stopped",
    },
    cmd.EraseBodies: {
        ValueError: "none",
        (ev.BodiesErased,): EVERYWHERE,
    },
    cmd.ObserveDrift: {
        ValueError: "none",
        (ev.DriftObserved,): EVERYWHERE,
    },
}


def commands_in(state: Sandbox | None) -> dict[type[cmd.Command], cmd.Command]:
    """Every command as it fits the situation: outcomes of the operation in flight, reports of a run that is open."""
    if state is None:
        return every_command(attempt=1)
    return every_command(attempt=state.attempt, execution_id=next(iter(state.executions), "ex_unknown"))


def cells() -> Iterator[tuple[type[cmd.Command], str, Outcome]]:
    for command, row in MATRIX.items():
        for outcome, names in row.items():
            for name in names.split():
                yield command, name, outcome


@pytest.mark.parametrize(
    ("command", "name", "outcome"), [pytest.param(*cell, id=f"{cell[0].__name__}-{cell[1]}") for cell in cells()]
)
def test_every_command_in_every_situation(command: type[cmd.Command], name: str, outcome: Outcome) -> None:
    state = SITUATIONS[name]
    asked = commands_in(state)[command]
    if isinstance(outcome, tuple):
        events = when(state, asked, NOW)
        assert tuple(type(event) for event in events) == outcome
        assert folded(state, events, at(NOW)) is not None
    else:
        with pytest.raises(outcome) as refusal:
            when(state, asked, NOW)
        assert refusal.type is outcome
        if isinstance(refusal.value, NexusError):
            assert SANDBOX in refusal.value.details.values(), "a refusal names its sandbox"


def test_the_matrix_has_every_cell_once() -> None:
    assert set(MATRIX) == leaves(cmd.Command), "a command is missing in the matrix"
    for command, row in MATRIX.items():
        named = [name for names in row.values() for name in names.split()]
        assert sorted(named) == sorted(SITUATIONS), f"{command.__name__}: a situation is missing or named twice"


def test_the_situations_are_all_that_can_be_reached() -> None:
    """Tries every command on everything reached so far until nothing new turns up."""
    reached: dict[Situation, Sandbox] = {}
    frontier = [given(requested())]
    short = every_command(attempt=1)[cmd.StartExecution]
    assert isinstance(short, cmd.StartExecution)
    short = dataclasses.replace(short, execution_id="ex_short", lease_until=at(NOW - 6))
    while frontier:
        state = frontier.pop()
        if reached.setdefault(situation(state, at(NOW)), state) is not state:
            continue
        for minute in (2.0, NOW):
            for command in (*commands_in(state).values(), short):
                try:
                    events = decide(command, state, at(minute))
                except NexusError:
                    continue
                after = folded(state, events, at(minute))
                assert after is not None
                frontier.append(after)
    named = {situation(state, at(NOW)) for state in SITUATIONS.values() if state is not None}
    assert set(reached) == named
    assert len(named) == len(SITUATIONS) - 1


@pytest.mark.parametrize("name", [name for name in SITUATIONS if name != "none"])
@pytest.mark.parametrize("kind", sorted(leaves(cmd.Outcome), key=str))
def test_outcomes_of_another_attempt_are_refused_everywhere(kind: type[cmd.Command], name: str) -> None:
    state = SITUATIONS[name]
    assert state is not None
    for attempt in (state.attempt - 1, state.attempt + 1, 0, -1):
        with pytest.raises(Superseded):
            when(state, every_command(attempt=attempt)[kind], NOW)


@pytest.mark.parametrize("name", [name for name in SITUATIONS if name != "none"])
@pytest.mark.parametrize("kind", [cmd.TakeOver, cmd.ExpireSandbox])
def test_nothing_is_taken_over_or_expired_before_its_time(kind: type[cmd.Command], name: str) -> None:
    assert when(SITUATIONS[name], every_command(attempt=1)[kind], 2) == []
