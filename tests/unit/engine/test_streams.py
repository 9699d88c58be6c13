"""Deciding on what this process knows, and on what is so: another process may have been first."""

from __future__ import annotations

from datetime import timedelta
from unittest.mock import patch

import pytest

from nexus.adapters.identity import ProcessOrigin
from nexus.domain.commands import Command, ExtendSandbox, LoseExecution, RequestPause, RequestStop, StartExecution
from nexus.domain.errors import SandboxBusy, StoreOutcomeUnknown, StoreUnavailable
from nexus.engine.streams import Cause, Streams
from tests.support.world import ANN, World

CAUSE = Cause.of(ANN, "test")


class Two:
    """The same sandbox as two processes know it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sandbox_id = world.engine.create(ANN, "data").sandbox_id
        self.ours, self.theirs = (Streams(world.store, world.clock, ProcessOrigin("test")) for _ in range(2))
        self.ours.get(self.sandbox_id)
        self.theirs.get(self.sandbox_id)

    def start(self, execution_id: str) -> StartExecution:
        lease = self.world.store.now() + timedelta(minutes=1)
        return StartExecution(
            execution_id=execution_id, language="python", code_sha256="0" * 64, code_bytes=2, timeout=30,
            lease_until=lease, holder="w:1",
        )  # fmt: skip

    def pause(self) -> RequestPause:
        return RequestPause(deadline=self.world.store.now() + timedelta(minutes=1), holder="w:1")

    def stop(self) -> RequestStop:
        return RequestStop(deadline=self.world.store.now() + timedelta(minutes=1), holder="w:1")

    def we(self, command: Command) -> list[str]:
        recorded = self.ours.execute(self.sandbox_id, command, CAUSE)
        assert recorded.state == Streams(self.world.store, self.world.clock, ProcessOrigin("test")).get(self.sandbox_id)
        return [type(envelope.event).__name__ for envelope in recorded.envelopes]

    def they(self, command: Command) -> None:
        self.theirs.execute(self.sandbox_id, command, CAUSE)


@pytest.fixture
def two(world: World) -> Two:
    return Two(world)


def test_what_is_known_is_decided_on_without_a_look(two: Two) -> None:
    with patch.object(two.world.store._store, "history", side_effect=AssertionError("looked")):
        two.ours.execute(two.sandbox_id, two.start("ex_1"), CAUSE)
        two.ours.execute(two.sandbox_id, LoseExecution(execution_id="ex_1", reason="test"), CAUSE)
    assert two.world.story(two.sandbox_id)[2:] == ["ExecutionStarted", "ExecutionLost"]


def test_who_was_first_elsewhere_is_seen_at_the_append(two: Two) -> None:
    two.they(two.start("ex_theirs"))
    assert two.we(two.start("ex_ours")) == ["ExecutionStarted"]
    assert two.world.engine.status(ANN, two.sandbox_id).open_executions == 2


def test_what_somebody_else_forbade_is_refused(two: Two) -> None:
    two.they(two.stop())
    with pytest.raises(SandboxBusy, match="stop is in flight"):
        two.we(two.start("ex_1"))
    assert two.world.story(two.sandbox_id)[2:] == ["StopRequested"]


def test_what_somebody_else_allowed_is_not_refused(two: Two) -> None:
    two.we(two.start("ex_1"))
    with pytest.raises(SandboxBusy, match="1 run"):
        two.we(two.pause())
    two.they(LoseExecution(execution_id="ex_1", reason="test"))
    assert two.we(two.pause()) == ["PauseRequested"]


def test_nothing_to_do_is_for_the_state_as_it_is(two: Two) -> None:
    two.they(two.start("ex_1"))
    assert two.we(LoseExecution(execution_id="ex_1", reason="test")) == ["ExecutionLost"]


@pytest.mark.parametrize("error", [StoreUnavailable("down"), StoreOutcomeUnknown("gone", events=())])
def test_a_store_that_fails_is_not_asked_for_a_second_try(two: Two, error: Exception) -> None:
    with patch.object(two.world.store._store, "append", side_effect=error) as append, pytest.raises(type(error)):
        two.we(ExtendSandbox(seconds=3600))
    assert append.call_count == 1
