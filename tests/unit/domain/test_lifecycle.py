"""The machine, and that events and edges say the same."""

from __future__ import annotations

import pytest
from transitions import Machine

from nexus.domain import events as ev
from nexus.domain.errors import IllegalTransition
from nexus.domain.lifecycle import EDGES, MACHINE, TABLE, allowed, target
from nexus.domain.pool_events import POOL_EVENTS
from nexus.domain.sandbox import APPLY
from nexus.domain.values import ErasureReason, Operation, SandboxState
from tests.unit.domain import story

EVENT_OF_TRIGGER: dict[str, type[ev.Event]] = {
    "start": ev.SandboxStarted,
    "fail": ev.SandboxFailed,
    "run": ev.ExecutionStarted,
    "pause": ev.SandboxPaused,
    "resume": ev.SandboxResumed,
    "extend": ev.SandboxExtended,
    "stop": ev.SandboxStopped,
    "lose": ev.SandboxLost,
}

BESIDE_THE_STATE = {
    ev.ExecutionFinished,
    ev.ExecutionTimedOut,
    ev.ExecutionLost,
    ev.PauseRequested,
    ev.PauseFailed,
    ev.ResumeRequested,
    ev.ResumeFailed,
    ev.StopRequested,
    ev.BodiesErased,
    ev.DriftObserved,
    ev.OperationTakenOver,
}
"""Events that say something about a sandbox and leave its state as it is."""

OF_OTHER_STREAMS: set[type[ev.Event]] = {ev.NameClaimed, ev.KeyClaimed, ev.CommandRefused, *POOL_EVENTS}

IN_STATE = {
    SandboxState.CREATING: story.given(story.requested()),
    SandboxState.ACTIVE: story.given(story.requested(), story.started()),
    SandboxState.PAUSED: story.given(
        story.requested(), story.started(), story.pause_requested(), story.paused(remaining=60)
    ),
    SandboxState.STOPPED: story.given(story.requested(), story.started(), story.stop_requested(), story.stopped()),
}

EXAMPLES: dict[type[ev.Event], ev.Event] = {
    type(event): event
    for event in (
        story.started(),
        story.failed(),
        story.run_started(),
        story.run_finished(),
        ev.ExecutionTimedOut.model_validate(
            {**story.run_finished().model_dump(exclude={"signal", "oom_killed"}), "exit_code": 124}
        ),
        ev.ExecutionLost(execution_id="ex_1", reason="its holder died"),
        story.pause_requested(),
        story.paused(),
        ev.PauseFailed(attempt=2, error="provider_unavailable", message="no answer"),
        story.resume_requested(),
        story.resumed(),
        ev.ResumeFailed(attempt=3, error="provider_unavailable", message="no answer"),
        ev.SandboxExtended(expires_at=story.at(90)),
        story.stop_requested(),
        story.stopped(),
        ev.SandboxLost(detail="no such container"),
        ev.BodiesErased(reason=ErasureReason.USER, executions=2),
        ev.DriftObserved(kind="restarted", detail="processes were lost", incarnation="i9"),
        story.taken_over(Operation.PAUSE),
    )
}


def test_every_event_is_accounted_for() -> None:
    edges = set(EVENT_OF_TRIGGER.values())
    assert edges.isdisjoint(BESIDE_THE_STATE)
    assert {ev.SandboxRequested} | edges | BESIDE_THE_STATE | OF_OTHER_STREAMS == set(ev.EVENT_TYPES)
    assert edges | BESIDE_THE_STATE == set(APPLY) == set(EXAMPLES)


def test_edges_and_events_are_tied_one_to_one() -> None:
    assert {trigger for trigger, _ in TABLE} == set(EVENT_OF_TRIGGER)
    assert len(set(EVENT_OF_TRIGGER.values())) == len(EVENT_OF_TRIGGER)


def test_a_sandbox_begins_where_the_machine_does() -> None:
    assert MACHINE.initial == IN_STATE[SandboxState.CREATING].state == SandboxState.CREATING


@pytest.mark.parametrize(("trigger", "source"), list(TABLE), ids=lambda value: str(value))
def test_an_event_leads_where_its_edge_leads(trigger: str, source: SandboxState) -> None:
    after = story.folded(IN_STATE[source], [EXAMPLES[EVENT_OF_TRIGGER[trigger]]])
    assert after is not None
    assert after.state is TABLE[trigger, source]


@pytest.mark.parametrize("state", list(SandboxState))
@pytest.mark.parametrize("kind", sorted(BESIDE_THE_STATE, key=str))
def test_other_events_leave_the_state_alone(kind: type[ev.Event], state: SandboxState) -> None:
    after = story.folded(IN_STATE[state], [EXAMPLES[kind]])
    assert after is not None
    assert after.state is state


def test_the_table_is_the_machine() -> None:
    """Walks the machine itself, with a model, against the table that is asked at run time."""

    class Model:
        state: str

    walked: dict[tuple[str, SandboxState], SandboxState] = {}
    for state in SandboxState:
        for trigger in EVENT_OF_TRIGGER:
            model = Model()
            machine = Machine(
                model=model,
                states=[each.value for each in SandboxState],
                transitions=list(EDGES),
                initial=state.value,
                auto_transitions=False,
            )
            if trigger in machine.get_triggers(state.value):
                assert machine.events[trigger].trigger(model)
                walked[trigger, state] = SandboxState(model.state)
    assert walked == TABLE


@pytest.mark.parametrize("state", list(SandboxState))
def test_what_is_not_in_the_table_is_refused_with_what_is_allowed(state: SandboxState) -> None:
    for trigger in EVENT_OF_TRIGGER:
        if (trigger, state) in TABLE:
            assert target(trigger, state) is TABLE[trigger, state]
            continue
        with pytest.raises(IllegalTransition) as refusal:
            target(trigger, state, "sb_1")
        assert refusal.value.details == {
            "trigger": trigger,
            "state": state.value,
            "allowed": allowed(state),
            "sandbox_id": "sb_1",
        }
        assert state.value in refusal.value.message
        for able in allowed(state):
            assert able in refusal.value.hint


def test_what_a_user_may_do_in_each_state() -> None:
    assert allowed(SandboxState.CREATING) == ("stop",)
    assert allowed(SandboxState.ACTIVE) == ("run", "pause", "extend", "stop")
    assert allowed(SandboxState.PAUSED) == ("resume", "extend", "stop")
    assert allowed(SandboxState.STOPPED) == ()


def test_stopped_is_final_and_everything_leads_there() -> None:
    assert not [trigger for trigger, source in TABLE if source is SandboxState.STOPPED]
    ends = {source for (_, source), goal in TABLE.items() if goal is SandboxState.STOPPED}
    assert ends == set(SandboxState) - {SandboxState.STOPPED}
