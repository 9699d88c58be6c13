"""What a newer program recorded makes that one sandbox read-only for this one; everything else goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest

from nexus.domain import events as ev
from nexus.domain.errors import UnreadableEvent
from nexus.domain.sandbox import stream_id
from nexus.engine.service import Engine
from nexus.engine.streams import Cause
from tests.support.world import ADMIN, ANN, World


class Later(ev.SandboxExtended):
    """The event as some later version of this program may write it."""

    VERSION: ClassVar = 99
    colour: str = "blue"


class Unheard(ev.Event):
    """One that this program has never heard of."""

    TOPIC: ClassVar = "sandbox.painted"
    colour: str = "blue"


CHANGES: dict[str, Callable[[Engine], object]] = {
    "run": lambda engine: engine.run(ANN, "newer", code="1"),
    "pause": lambda engine: engine.pause(ANN, "newer"),
    "resume": lambda engine: engine.resume(ANN, "newer"),
    "extend": lambda engine: engine.extend(ANN, "newer", 10),
    "stop": lambda engine: engine.stop(ANN, "newer"),
}


@pytest.fixture(params=[Later(), Unheard()], ids=["newer version", "unknown event"])
def newer(world: World, request: pytest.FixtureRequest) -> World:
    """A sandbox whose last event is a newer program's, and another one."""
    sandbox_id = world.engine.create(ANN, "newer").sandbox_id
    world.engine.create(ANN, "other")
    version = world.events(sandbox_id)[-1].originator_version + 1
    cause = Cause.of(ANN, "extend")
    envelope = world.engine.streams.envelope(stream_id(sandbox_id), version, request.param, cause, world.store.now())
    world.store.append([envelope])
    return world


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_not_changed(newer: World, change: str) -> None:
    engine = newer.worker("another")
    resources = newer.cloud.resources()
    with newer.nothing_recorded(), pytest.raises(UnreadableEvent) as refused:
        CHANGES[change](engine)
    assert "99" in refused.value.message or "sandbox.painted" in refused.value.message
    assert refused.value.hint
    assert newer.cloud.resources() == resources


def test_it_is_still_listed_and_the_rest_goes_on(newer: World) -> None:
    engine = newer.worker("another")
    assert {view.name: view.status for view in engine.list(ANN).sandboxes} == {"newer": "active", "other": "active"}
    assert engine.status(ANN, "newer").status == "active"
    engine.run(ANN, "other", code="1")
    engine.create(ANN, "third")
    engine.stop(ANN, "other")


def test_its_resource_outlives_every_sweep(newer: World) -> None:
    """It is neither expired nor an orphan, as far as this program can tell; the sweep says what it could not do."""
    engine = newer.worker("another")
    newer.pass_time(hours=2)
    for _ in range(3):
        report = engine.reconcile(ADMIN)
    assert any("99" in problem or "sandbox.painted" in problem for problem in report.problems)
    assert [one.name for one in newer.cloud.resources()] == ["newer"]
    assert engine.status(ANN, "other").status == "stopped"
