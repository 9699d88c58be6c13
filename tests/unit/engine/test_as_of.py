"""As-of at a thousand random moments equals a fresh replay that stops there, for one sandbox and for the fleet."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta

import pytest

from nexus.domain.errors import SandboxNotFound
from nexus.domain.events import Envelope
from nexus.domain.sandbox import Sandbox, fold, sandbox_id_of
from nexus.engine.history import Moment
from nexus.engine.views import view_of
from nexus.projections.views import SandboxView
from tests.support.world import ADMIN, ANN, BOB, World
from tests.unit.engine.test_recovery import Crash, crashing_at

MOMENTS = 1000


@pytest.fixture
def log(world: World) -> list[Envelope]:
    """What two users did with a dozen sandboxes, in turns: names used again, crashes, take-overs, expiry, losses."""
    chance = random.Random(11)
    engine = world.engine
    for number in range(12):
        who = chance.choice((ANN, BOB))
        view = engine.create(who, f"s{number % 5}" if who is ANN else f"s{number}", ttl_minutes=10 + number)
        engine.run(who, view.sandbox_id, code="1")
        if number % 4 == 1:
            engine.pause(who, view.sandbox_id)
            if number % 8 == 1:
                engine.resume(who, view.sandbox_id)
        if number % 4 == 2:
            engine.extend(who, view.sandbox_id, 60)
            with suppress(Crash):
                crashing_at(world, "stop.intent").stop(who, view.sandbox_id)
            world.kill("doomed")
            engine.sweep()
        if number % 4 == 3:
            world.cloud.vanish(view.sandbox_id)
            engine.reconcile(ADMIN)
        if who is ANN and engine.status(ANN, view.sandbox_id).status != "stopped":
            engine.stop(ANN, view.sandbox_id)
    world.pass_time(hours=2)
    engine.sweep()
    events: list[Envelope] = world.store.read(0, 100_000)
    return events


def replayed(events: Iterable[Envelope]) -> dict[str, SandboxView]:
    """Every sandbox's view after these events."""
    states: dict[str, Sandbox] = {}
    for envelope in events:
        sandbox_id = sandbox_id_of(envelope.originator_id)
        if sandbox_id is not None:
            state = fold(states.get(sandbox_id), [envelope])
            assert state is not None
            states[sandbox_id] = state
    return {sandbox_id: view_of(state) for sandbox_id, state in states.items()}


def test_a_thousand_random_positions(world: World, log: list[Envelope]) -> None:
    chance = random.Random(12)
    history, last = world.engine.history, log[-1].position or 0
    everyone = list(replayed(log))
    seen = set()
    for _ in range(MOMENTS):
        place = chance.choice(log).position or 0
        position = min(last + 1, max(0, place + chance.choice((0, 0, 0, -1, 1))))
        wanted = replayed(event for event in log if (event.position or 0) <= position)
        fleet = history.fleet(ADMIN, Moment(position=position), all_users=True)
        assert {view.sandbox_id: view for view in fleet} == wanted
        sandbox_id = chance.choice(everyone)
        if sandbox_id in wanted:
            assert history.status(ADMIN, sandbox_id, Moment(position=position)) == wanted[sandbox_id]
        else:
            with pytest.raises(SandboxNotFound):
                history.status(ADMIN, sandbox_id, Moment(position=position))
        seen.add(len(wanted))
    assert seen >= set(range(1, 12)), "moments of every age"


def test_a_thousand_random_microseconds(world: World, log: list[Envelope]) -> None:
    chance = random.Random(13)
    history = world.engine.history
    everyone = list(replayed(log))
    for _ in range(MOMENTS // 4):
        time = recorded(chance.choice(log)) + timedelta(microseconds=chance.choice((-1, 0, 1)))
        wanted = replayed(event for event in log if recorded(event) <= time)
        fleet = history.fleet(ADMIN, Moment(time=time), all_users=True)
        assert {view.sandbox_id: view for view in fleet} == wanted
    for _ in range(MOMENTS):
        time = recorded(chance.choice(log)) + timedelta(microseconds=chance.choice((-1, 0, 1)))
        sandbox_id = chance.choice(everyone)
        wanted = replayed(event for event in log if recorded(event) <= time and owns(sandbox_id, event))
        if wanted:
            assert history.status(ADMIN, sandbox_id, Moment(time=time)) == wanted[sandbox_id]
        else:
            with pytest.raises(SandboxNotFound):
                history.status(ADMIN, sandbox_id, Moment(time=time))


def recorded(envelope: Envelope) -> datetime:
    assert envelope.recorded_at is not None
    return envelope.recorded_at


def owns(sandbox_id: str, envelope: Envelope) -> bool:
    return sandbox_id_of(envelope.originator_id) == sandbox_id
