"""How long things live: expiry, extension, the frozen time of a pause, and when somebody has to look next."""

from __future__ import annotations

from typing import Any

import pytest

from nexus.domain import commands as cmd
from nexus.domain import events as ev
from nexus.domain.provider import ExecutionResult
from nexus.domain.sandbox import Sandbox
from nexus.domain.values import Operation, StopReason
from tests.unit.domain.story import (
    REF,
    at,
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


def start(*, minute: float, timeout: int = 30, execution_id: str = "ex_new") -> cmd.StartExecution:
    return cmd.StartExecution(
        execution_id=execution_id,
        language="python",
        code_sha256="0" * 64,
        code_bytes=1,
        timeout=timeout,
        lease_until=at(minute + (timeout + 10) / 60),
        holder="host:1",
    )


def finish(outcome: ExecutionResult, execution_id: str = "ex_1") -> cmd.FinishExecution:
    return cmd.FinishExecution(
        execution_id=execution_id, result=outcome, stdout_sha256="1" * 64, stderr_sha256="2" * 64
    )


def expire(minute: float) -> cmd.ExpireSandbox:
    return cmd.ExpireSandbox(deadline=at(minute + 1), holder="worker")


def only(events: list[ev.Event]) -> Any:
    (event,) = events
    return event


# --- while active ----------------------------------------------------------------------------------------------------
def test_a_sandbox_lives_for_its_ttl_from_the_moment_it_is_up() -> None:
    state = given(requested(ttl_minutes=20))
    assert only(when(state, cmd.RecordStarted(attempt=1, ref=REF), 2)).expires_at == at(22)


def test_each_run_moves_the_end_by_the_ttl_at_its_start_and_at_its_finish() -> None:
    state = given(requested(), started(expires=10))
    assert only(when(state, start(minute=4), 4)).expires_at == at(14)
    state = given(requested(), started(expires=10), run_started(expires=14))
    assert only(when(state, finish(result()), 9)).expires_at == at(19)


def test_a_run_never_brings_the_end_nearer() -> None:
    state = given(requested(), started(expires=10), ev.SandboxExtended(expires_at=at(120)), run_started(expires=120))
    assert only(when(state, start(minute=4), 4)).expires_at == at(120)
    assert only(when(state, finish(result()), 5)).expires_at == at(120)


def test_extending_moves_the_end_and_never_shortens() -> None:
    state = given(requested(), started(expires=10))
    assert only(when(state, cmd.ExtendSandbox(seconds=30 * 60), 5)).expires_at == at(35)
    assert when(state, cmd.ExtendSandbox(seconds=5 * 60), 5) == []
    assert when(state, cmd.ExtendSandbox(seconds=60), 5) == []


def test_expiry_comes_at_the_very_end_and_not_before() -> None:
    state = given(requested(), started(expires=10))
    assert when(state, expire(10), 10 - 1e-6) == []
    stop = only(when(state, expire(10), 10))
    assert stop.reason is StopReason.EXPIRED
    assert only(when(folded(state, [stop]), cmd.RecordStopped(attempt=stop.attempt), 11)).reason is StopReason.EXPIRED


def test_expiry_waits_for_an_open_run_until_its_own_time_is_over() -> None:
    state = given(requested(), started(expires=10), run_started(lease=30))
    assert when(state, expire(20), 20) == []
    assert only(when(state, expire(30), 30)).reason is StopReason.EXPIRED


def test_expiry_of_one_of_two_runs_is_not_enough() -> None:
    state = given(requested(), started(), run_started("ex_1", lease=15), run_started("ex_2", lease=30))
    assert when(state, expire(16), 16) == []
    assert len(when(state, expire(30), 30)) == 1


def test_expiry_leaves_an_operation_in_flight_alone() -> None:
    for pending in (pause_requested(deadline=60), stop_requested(deadline=60)):
        assert when(given(requested(), started(expires=10), pending), expire(20), 20) == []


# --- while paused ----------------------------------------------------------------------------------------------------
def test_a_pause_freezes_what_is_left() -> None:
    state = given(requested(), started(expires=10), pause_requested())
    pause = only(when(state, cmd.RecordPaused(attempt=2, ref=REF), 4))
    assert pause.remaining_seconds == 6 * 60
    asleep = folded(state, [pause], at(4))
    assert asleep is not None
    assert asleep.expires_at is None
    assert asleep.paused_at == at(4)
    awake = folded(asleep, [resume_requested()], at(500))
    assert only(when(awake, cmd.RecordResumed(attempt=3, ref=REF, generation=1), 500)).expires_at == at(506)


def test_what_is_left_is_never_negative() -> None:
    state = given(requested(), started(expires=10), pause_requested(deadline=60))
    assert only(when(state, cmd.RecordPaused(attempt=2, ref=REF), 15)).remaining_seconds == 0.0


def test_a_paused_sandbox_does_not_expire_with_its_ttl_but_with_its_age() -> None:
    state = given(requested(max_age_days=1), started(expires=10), pause_requested(), paused(remaining=60))
    day = 24 * 60
    assert when(state, expire(day), day - 0.001) == []
    assert only(when(state, expire(day), day)).reason is StopReason.EXPIRED


def test_extending_a_paused_sandbox_adds_to_what_is_left() -> None:
    state = given(requested(), started(), pause_requested(), paused(remaining=300.0))
    longer = only(when(state, cmd.ExtendSandbox(seconds=900), 30))
    assert (longer.remaining_seconds, longer.expires_at) == (900.0, None)
    assert when(state, cmd.ExtendSandbox(seconds=300), 30) == []
    after = folded(state, [longer])
    assert after is not None
    assert (after.remaining_seconds, after.expires_at) == (900.0, None)


def test_a_late_outcome_of_a_run_does_not_wake_the_clock_of_a_paused_sandbox() -> None:
    """A run whose time was over did not keep the sandbox from being paused; its outcome may still come in."""
    state = given(requested(), started(), run_started(lease=1), pause_requested(), paused(remaining=300.0))
    after = folded(state, when(state, finish(result()), 6), at(6))
    assert after is not None
    assert after.executions == {}
    assert after.expires_at is None
    assert after.remaining_seconds == 300.0


def test_an_active_sandbox_has_no_frozen_time() -> None:
    state = given(requested(), started(), pause_requested(), paused(), resume_requested(), resumed(expires=20))
    assert (state.remaining_seconds, state.paused_at, state.expires_at) == (None, None, at(20))


# --- when to look next -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("state", "minute"),
    [
        pytest.param(given(requested()), 3.0, id="creating: its deadline"),
        pytest.param(given(requested(), started(expires=10)), 10.0, id="active: its end"),
        pytest.param(given(requested(), started(), run_started(lease=2)), 2.0, id="run: the end of its lease"),
        pytest.param(
            given(requested(), started(), run_started("ex_1", lease=7), run_started("ex_2", lease=2)),
            2.0,
            id="two runs: the first lease",
        ),
        pytest.param(given(requested(), started(expires=10), run_started(lease=30)), 30.0, id="a run outlasts the end"),
        pytest.param(given(requested(), started(), pause_requested(deadline=5)), 5.0, id="in flight: its deadline"),
        pytest.param(
            given(requested(), started(), run_started(lease=2), stop_requested(deadline=5)), 2.0, id="run, then stop"
        ),
        pytest.param(
            given(requested(max_age_days=1), started(), pause_requested(), paused()), 24 * 60.0, id="paused: its age"
        ),
        pytest.param(
            given(requested(), taken_over(Operation.CREATE, deadline=9)), 9.0, id="taken over: the new deadline"
        ),
    ],
)
def test_somebody_looks_when_the_next_thing_is_due(state: Sandbox, minute: float) -> None:
    assert state.due_at() == at(minute)


def test_nobody_has_to_look_at_what_is_stopped() -> None:
    assert given(requested(), started(), run_started(), stop_requested(), stopped()).due_at() is None


def test_the_end_is_due_again_once_the_run_is_over() -> None:
    state = given(requested(), started(), run_started(lease=2), run_finished(expires=12))
    assert state.due_at() == at(12)
