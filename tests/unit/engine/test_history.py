"""As-of, replay and why: straight from the events, exact, and without a provider."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from nexus.domain.errors import InvalidInput, SandboxNotFound
from nexus.domain.events import Envelope
from nexus.domain.sandbox import Sandbox, fold, sandbox_id_of, stream_id
from nexus.engine.history import History, Moment
from nexus.engine.views import view_of
from tests.support.world import ADMIN, ANN, BOB, ShiftedStore, World


def lived(world: World) -> str:
    """A sandbox with a whole life behind it."""
    engine = world.engine
    sandbox_id = engine.create(ANN, "data", ttl_minutes=10).sandbox_id
    engine.run(ANN, "data", code="1")
    engine.pause(ANN, "data")
    engine.resume(ANN, "data")
    engine.stop(ANN, "data")
    return sandbox_id


def test_status_as_of_every_position_and_microsecond(world: World) -> None:
    sandbox_id = lived(world)
    state: Sandbox | None = None
    for envelope in world.events(sandbox_id):
        state = fold(state, [envelope])
        assert state is not None
        assert envelope.recorded_at is not None
        for moment in (Moment(position=envelope.position), Moment(time=envelope.recorded_at)):
            seen = world.engine.history.status(ANN, sandbox_id, moment)
            assert seen.version >= state.version
            if moment.position is not None:
                assert seen == view_of(state)
    first = world.events(sandbox_id)[0]
    assert first.recorded_at is not None
    for before in (
        Moment(position=(first.position or 0) - 1),
        Moment(time=first.recorded_at - timedelta(microseconds=1)),
    ):
        with pytest.raises(SandboxNotFound):
            world.engine.history.status(ANN, sandbox_id, before)


def test_the_fleet_as_of_random_positions_equals_a_fresh_replay(world: World) -> None:
    for number in range(6):
        world.engine.create(ANN if number % 2 else BOB, f"s{number}", labels={"n": str(number % 3)})
        if number % 3 == 0:
            world.engine.run(ADMIN, world.engine.list(ADMIN, all_users=True).sandboxes[0].sandbox_id, code="1")
        if number % 2:
            world.engine.stop(ANN, f"s{number}")
    log = world.store.read(0, 10_000)
    for position in random.Random(7).sample(range(1, len(log) + 1), 20):
        states: dict[str, Sandbox] = {}
        for envelope in log[:position]:
            sandbox_id = sandbox_id_of(envelope.originator_id)
            if sandbox_id is not None:
                state = fold(states.get(sandbox_id), [envelope])
                assert state is not None
                states[sandbox_id] = copy.copy(state)
        fleet = world.engine.history.fleet(ADMIN, Moment(position=log[position - 1].position), all_users=True)
        assert {view.sandbox_id: view for view in fleet} == {key: view_of(state) for key, state in states.items()}


def test_a_stream_has_no_holes_though_a_clock_was_set_back(world: World) -> None:
    """The second event says that it was recorded later than all that followed it."""
    view = world.engine.create(ANN, "data")
    world.engine.run(ANN, "data", code="1")
    first = world.events(view.sandbox_id)[0].recorded_at
    assert first is not None

    class SetBack(ShiftedStore):
        def load(self, *asked: Any, **more: Any) -> list[Envelope]:
            return [ahead(one) for one in self._store.load(*asked, **more)]

        def read(self, *asked: Any, **more: Any) -> list[Envelope]:
            return [ahead(one) for one in self._store.read(*asked, **more)]

    def ahead(envelope: Envelope) -> Envelope:
        late = envelope.originator_id == stream_id(view.sandbox_id) and envelope.originator_version == 2
        return replace(envelope, recorded_at=first + timedelta(hours=1)) if late else envelope

    history = History(SetBack(world.store), world.engine.queries)
    moment = Moment(time=first + timedelta(minutes=30))
    assert history.status(ANN, view.sandbox_id, moment).version == 1
    assert [one.version for one in history.fleet(ANN, moment)] == [1]
    assert [step.view.version for step in history.replay(ANN, view.sandbox_id, moment)] == [1]


def test_a_name_means_the_sandbox_that_bore_it_then(world: World) -> None:
    first = world.engine.create(ANN, "data")
    then = Moment(position=world.store.head())
    world.engine.stop(ANN, "data")
    second = world.engine.create(ANN, "data")
    assert world.engine.history.status(ANN, "data", then).sandbox_id == first.sandbox_id
    assert world.engine.history.status(ANN, "data", Moment(position=world.store.head())).sandbox_id == second.sandbox_id


def test_anothers_past_is_unknown(world: World) -> None:
    sandbox_id = lived(world)
    for ask in (
        lambda: world.engine.history.status(BOB, sandbox_id, Moment(position=world.store.head())),
        lambda: list(world.engine.history.replay(BOB, sandbox_id)),
    ):
        with pytest.raises(SandboxNotFound):
            ask()
    assert world.engine.history.fleet(BOB, Moment(position=world.store.head())) == []


def test_replay_never_touches_the_provider(world: World) -> None:
    sandbox_id = lived(world)
    calls = len(world.cloud.calls())
    steps = list(world.engine.history.replay(ANN, sandbox_id))
    assert [step.view.status for step in steps][:2] == ["creating", "active"]
    assert steps[-1].view == world.engine.status(ANN, sandbox_id)
    assert len(world.cloud.calls()) == calls


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-23", "2026-11-23T10:42:00", "-1", "٣", "1" * 30])
def test_a_moment_is_a_position_or_a_time_with_an_offset(text: str) -> None:
    with pytest.raises(InvalidInput):
        Moment.parse(text)
    assert Moment.parse("42").position == 42
    assert Moment.parse("2026-11-23T10:42:00Z").time is not None
