"""Executions, operations and recovery, told as stories: what is recorded, and what the state says after it."""

from __future__ import annotations

from typing import Any

import pytest

from nexus.domain import commands as cmd
from nexus.domain import encoding
from nexus.domain import events as ev
from nexus.domain.decisions import Superseded
from nexus.domain.errors import Conflict, SandboxBusy
from nexus.domain.sandbox import Pending, Sandbox, fold, sandbox_id_of, stream_id
from nexus.domain.values import Operation, SandboxState, StopReason
from tests.unit.domain.story import (
    REF,
    SANDBOX,
    at,
    envelope,
    every_command,
    failed,
    folded,
    given,
    pause_requested,
    paused,
    requested,
    result,
    resume_requested,
    resumed,
    run_finished,
    run_started,
    started,
    stop_requested,
    stopped,
    taken_over,
    when,
)


def only(events: list[ev.Event]) -> Any:
    (event,) = events
    return event


# --- creation --------------------------------------------------------------------------------------------------------
def test_a_request_says_everything_and_starts_the_first_attempt() -> None:
    command = every_command(attempt=1)[cmd.RequestSandbox]
    event = only(when(None, command))
    for field in ev.SandboxRequested.model_fields:
        if field != "attempt":
            assert getattr(event, field) == getattr(command, field), field
    assert event.attempt == 1


def test_a_requested_sandbox_is_being_created() -> None:
    state = given((requested(ttl_minutes=20), 2.0))
    assert state.state is SandboxState.CREATING
    assert state.pending == Pending(Operation.CREATE, 1, at(3), "host:1")
    assert state.created_at == at(2)
    assert state.limits == {"memory_mb": 512, "cpus": 0.5, "processes": None}
    assert (state.started_at, state.expires_at, state.ref, state.version) == (None, None, None, 1)


def test_a_started_sandbox_is_active_with_nothing_in_flight() -> None:
    state = given(requested(), (started(expires=12), 2.0))
    assert (state.state, state.pending) == (SandboxState.ACTIVE, None)
    assert (state.ref, state.incarnation) == (REF, "i1")
    assert state.started_at == state.last_active_at == at(2)
    assert state.expires_at == at(12)


def test_a_failed_creation_is_the_end_and_keeps_the_message() -> None:
    event = only(when(given(requested()), cmd.RecordFailed(attempt=1, error="provider_auth", message="no key"), 1))
    state = given(requested(), (event, 1.0))
    assert (state.state, state.stop_reason, state.last_error) == (SandboxState.STOPPED, StopReason.FAILED, "no key")
    assert state.stopped_at == at(1)
    assert state.pending is None


def test_the_reason_of_a_failure_is_kept() -> None:
    command = cmd.RecordFailed(attempt=1, error="x", message="y", reason=StopReason.ORPHANED)
    assert only(when(given(requested()), command)).reason is StopReason.ORPHANED
    assert given(requested(), failed(reason=StopReason.ORPHANED)).stop_reason is StopReason.ORPHANED


# --- executions ------------------------------------------------------------------------------------------------------
def test_runs_may_overlap() -> None:
    state = given(requested(), started(), run_started("ex_1", lease=1), (run_started("ex_2", lease=2), 0.5))
    assert list(state.executions) == ["ex_1", "ex_2"]
    assert state.executions["ex_2"].started_at == at(0.5)
    assert state.runs == 2
    state = given(requested(), started(), run_started("ex_1"), run_started("ex_2"), (run_finished("ex_1"), 0.7))
    assert list(state.executions) == ["ex_2"]
    assert state.last_active_at == at(0.7)
    assert state.runs == 2


def test_an_execution_id_that_is_open_cannot_be_started_again() -> None:
    state = given(requested(), started(), run_started("ex_new"))
    with pytest.raises(Conflict, match="ex_new"):
        when(state, every_command(attempt=1)[cmd.StartExecution])


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        ({}, ev.ExecutionFinished, {"exit_code": 0, "signal": None, "oom_killed": False, "truncated": False}),
        ({"exit_code": 3}, ev.ExecutionFinished, {"exit_code": 3}),
        ({"exit_code": 139, "signal": 11}, ev.ExecutionFinished, {"exit_code": 139, "signal": 11}),
        ({"exit_code": 137, "oom_killed": True}, ev.ExecutionFinished, {"oom_killed": True}),
        ({"stdout_bytes": 4}, ev.ExecutionFinished, {"truncated": True, "stdout_bytes": 4}),
        ({"stderr_bytes": 9}, ev.ExecutionFinished, {"truncated": True, "stderr_bytes": 9}),
        ({"exit_code": 124, "timed_out": True}, ev.ExecutionTimedOut, {"exit_code": 124, "duration": 0.25}),
    ],
)
def test_the_outcome_of_a_run_is_recorded_as_it_was(
    changes: dict[str, Any], kind: type[ev.Event], expected: dict[str, Any]
) -> None:
    state = given(requested(), started(), run_started("ex_1"))
    command = cmd.FinishExecution(
        execution_id="ex_1", result=result(**changes), stdout_sha256="1" * 64, stderr_sha256="2" * 64
    )
    event = only(when(state, command, 1))
    assert event.TOPIC == kind.TOPIC
    assert {name: getattr(event, name) for name in expected} == expected
    assert (event.stdout_sha256, event.stderr_sha256) == ("1" * 64, "2" * 64)


def test_no_output_gets_into_an_event() -> None:
    state = given(requested(), started(), run_started("ex_1"))
    command = cmd.FinishExecution(
        execution_id="ex_1",
        result=result(stdout=b"canary-out", stderr=b"canary-err"),
        stdout_sha256="1" * 64,
        stderr_sha256="2" * 64,
    )
    assert b"canary" not in encoding.encode(only(when(state, command, 1)))


def test_an_outcome_is_recorded_once() -> None:
    state = given(requested(), started(), run_started("ex_1"), run_finished("ex_1"))
    with pytest.raises(Superseded, match="ex_1"):
        when(state, every_command(attempt=1)[cmd.FinishExecution])


def test_a_lost_run_cannot_finish_any_more() -> None:
    state = given(requested(), started(), run_started("ex_1"), ev.ExecutionLost(execution_id="ex_1", reason="gone"))
    with pytest.raises(Superseded):
        when(state, every_command(attempt=1)[cmd.FinishExecution])
    assert when(state, every_command(attempt=1)[cmd.LoseExecution]) == []


def test_a_lost_run_does_not_count_as_activity() -> None:
    state = given(
        requested(), (started(), 1.0), (run_started(), 2.0), (ev.ExecutionLost(execution_id="ex_1", reason="x"), 9.0)
    )
    assert state.last_active_at == at(2)
    assert state.expires_at == at(10)


# --- pause and resume ------------------------------------------------------------------------------------------------
def test_a_pause_is_refused_while_a_run_is_inside_its_time_and_names_it() -> None:
    state = given(requested(), started(), run_started("ex_1", lease=2), run_started("ex_2", lease=1))
    with pytest.raises(SandboxBusy) as refusal:
        when(state, cmd.RequestPause(deadline=at(3), holder="host:1"), 1.5)
    assert refusal.value.details["execution_ids"] == ("ex_1",)
    assert len(when(state, cmd.RequestPause(deadline=at(3), holder="host:1"), 2)) == 1, "its time is over at its end"


def test_a_pause_that_fails_leaves_the_sandbox_active() -> None:
    state = given(requested(), started(), pause_requested())
    event = only(when(state, cmd.RecordPauseFailed(attempt=2, error="provider_unavailable", message="no answer")))
    state = given(requested(), started(), pause_requested(), event)
    assert (state.state, state.pending, state.last_error) == (SandboxState.ACTIVE, None, "no answer")
    assert state.expires_at == at(10)


def test_a_resume_that_fails_leaves_the_sandbox_paused() -> None:
    state = given(requested(), started(), pause_requested(), paused(remaining=60), resume_requested())
    event = only(when(state, cmd.RecordResumeFailed(attempt=3, error="provider_unavailable", message="no answer")))
    after = folded(state, [event])
    assert after is not None
    assert (after.state, after.pending, after.last_error) == (SandboxState.PAUSED, None, "no answer")
    assert after.remaining_seconds == 60


def test_a_resume_may_bring_a_new_ref_generation_and_incarnation() -> None:
    other = {"provider": "fake", "version": 1, "data": {"id": "r2"}}
    state = given(requested(), started(), pause_requested(), paused(), resume_requested())
    command = cmd.RecordResumed(attempt=3, ref=other, generation=2, incarnation="i2", notes=("processes were lost",))
    after = folded(state, when(state, command, 4), at(4))
    assert after is not None
    assert (after.ref, after.generation, after.incarnation) == (other, 2, "i2")
    assert after.notes == ("processes were lost",)
    assert after.last_active_at == at(4)


def test_each_operation_gets_the_next_attempt_number() -> None:
    state = given(requested(), started(), pause_requested(attempt=2), paused(attempt=2))
    assert only(when(state, cmd.RequestResume(deadline=at(9), holder="h"))).attempt == 3
    state = given(requested(), started(), pause_requested(), paused(), resume_requested(attempt=3), resumed(attempt=3))
    assert only(when(state, cmd.RequestStop(deadline=at(9), holder="h"))).attempt == 4


# --- the end ---------------------------------------------------------------------------------------------------------
def test_a_stop_supersedes_what_is_in_flight() -> None:
    """Its intent takes the next attempt number, so the outcome of what was in flight comes too late."""
    state = given(requested(), stop_requested(attempt=2))
    with pytest.raises(Superseded):
        when(state, cmd.RecordStarted(attempt=1, ref=REF))
    assert type(only(when(state, cmd.RecordStopped(attempt=2)))) is ev.SandboxStopped


def test_a_stop_ends_the_open_runs_as_lost() -> None:
    state = given(requested(), started(), run_started("ex_1"), run_started("ex_2"), stop_requested())
    lost_1, lost_2, end = when(state, cmd.RecordStopped(attempt=2))
    assert isinstance(lost_1, ev.ExecutionLost)
    assert isinstance(lost_2, ev.ExecutionLost)
    assert (lost_1.execution_id, lost_2.execution_id) == ("ex_1", "ex_2")
    after = folded(state, [lost_1, lost_2, end], at(4))
    assert after is not None
    assert (after.state, after.stop_reason, after.stopped_at) == (SandboxState.STOPPED, StopReason.USER, at(4))
    assert after.executions == {}


def test_a_lost_sandbox_says_why() -> None:
    state = given(requested(), started(), run_started(), (ev.SandboxLost(detail="no such container"), 3.0))
    assert (state.state, state.stop_reason) == (SandboxState.STOPPED, StopReason.LOST)
    assert (state.last_error, state.stopped_at, state.executions) == ("no such container", at(3), {})


# --- recovery --------------------------------------------------------------------------------------------------------
IN_FLIGHT: dict[Operation, tuple[Sandbox, cmd.Outcome, cmd.Outcome]] = {
    Operation.CREATE: (
        given(requested()),
        cmd.RecordStarted(attempt=1, ref=REF),
        cmd.RecordStarted(attempt=2, ref=REF),
    ),
    Operation.PAUSE: (
        given(requested(), started(), pause_requested()),
        cmd.RecordPaused(attempt=2, ref=REF),
        cmd.RecordPaused(attempt=3, ref=REF),
    ),
    Operation.RESUME: (
        given(requested(), started(), pause_requested(), paused(), resume_requested()),
        cmd.RecordResumed(attempt=3, ref=REF, generation=1),
        cmd.RecordResumed(attempt=4, ref=REF, generation=1),
    ),
    Operation.STOP: (
        given(requested(), started(), stop_requested(reason=StopReason.EXPIRED)),
        cmd.RecordStopped(attempt=2),
        cmd.RecordStopped(attempt=3),
    ),
}


@pytest.mark.parametrize("operation", list(Operation))
def test_whoever_takes_over_fences_off_whoever_had_it(operation: Operation) -> None:
    state, theirs, ours = IN_FLIGHT[operation]
    takeover = only(when(state, cmd.TakeOver(deadline=at(30), holder="host:2"), 6))
    assert (takeover.operation, takeover.attempt) == (operation, state.attempt + 1)
    assert (takeover.holder, takeover.previous_holder) == ("host:2", "host:1")
    after = folded(state, [takeover], at(6))
    assert after is not None
    assert after.pending is not None
    assert (after.pending.attempt, after.pending.deadline, after.pending.holder) == (takeover.attempt, at(30), "host:2")
    assert after.state is state.state
    with pytest.raises(Superseded) as refusal:
        when(after, theirs, 7)
    assert refusal.value.details["attempt"] == theirs.attempt
    assert len(when(after, ours, 7)) == 1


@pytest.mark.parametrize("operation", list(Operation))
def test_a_dead_holder_is_not_waited_for(operation: Operation) -> None:
    state, _, _ = IN_FLIGHT[operation]
    assert when(state, cmd.TakeOver(deadline=at(30), holder="host:2"), 1) == []
    assert len(when(state, cmd.TakeOver(deadline=at(30), holder="host:2", holder_is_dead=True), 1)) == 1


def test_a_take_over_comes_at_the_deadline_and_not_before() -> None:
    state = given(requested())
    command = cmd.TakeOver(deadline=at(30), holder="host:2")
    assert when(state, command, 3 - 1e-6) == []
    assert len(when(state, command, 3)) == 1


def test_a_stop_that_is_taken_over_keeps_its_reason() -> None:
    state = given(
        requested(), started(), stop_requested(reason=StopReason.EXPIRED), taken_over(Operation.STOP, attempt=3)
    )
    assert only(when(state, cmd.RecordStopped(attempt=3))).reason is StopReason.EXPIRED


def test_drift_may_change_the_incarnation_and_nothing_else() -> None:
    before = given(requested(), started())
    seen = only(when(before, cmd.ObserveDrift(kind="restarted", detail="by hand", incarnation="i9")))
    after = folded(before, [seen])
    assert after is not None
    assert (after.incarnation, after.state) == ("i9", SandboxState.ACTIVE)
    seen = only(when(before, cmd.ObserveDrift(kind="extra", detail="a second resource was destroyed")))
    after = folded(before, [seen])
    assert after is not None
    assert after.incarnation == "i1"


# --- the fold itself -------------------------------------------------------------------------------------------------
def test_a_story_must_begin_at_its_beginning() -> None:
    with pytest.raises(ValueError, match=r"sandbox\.requested"):
        fold(None, [envelope(started(), 1)])


def test_nothing_folds_to_nothing() -> None:
    assert fold(None, []) is None


def test_the_version_is_that_of_the_last_event() -> None:
    assert given(requested(), started(), run_started()).version == 3


def test_old_history_folds_although_the_rules_of_today_would_refuse_it() -> None:
    state = given(requested(), started(), pause_requested(), paused(), run_started(), stopped())
    assert state.state is SandboxState.STOPPED


def test_a_sandbox_and_its_stream_name_each_other() -> None:
    assert sandbox_id_of(stream_id(SANDBOX)) == SANDBOX
    assert stream_id(SANDBOX) == "sandbox-" + "5" * 32
    assert sandbox_id_of("name-" + "5" * 32) is None
