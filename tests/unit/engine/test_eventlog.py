"""Reading the log: who sees which events, and that pages and windows lose none."""

from __future__ import annotations

import pytest

from nexus.domain.errors import InvalidInput, NotFound, SandboxNotFound
from nexus.domain.events import Envelope
from nexus.domain.values import Principal, system_principal
from nexus.engine.eventlog import EventLog, sandbox_of
from tests.support.world import ADMIN, ANN, BOB, World


@pytest.fixture
def log(world: World, monkeypatch: pytest.MonkeyPatch) -> EventLog:
    """Three of ann's sandboxes, then many events of bob's; pages of the log are small."""
    monkeypatch.setattr("nexus.engine.eventlog._PAGE", 3)
    for name in ("one", "two", "three"):
        world.engine.create(ANN, name, idempotency_key=f"key-{name}")
    world.engine.create(BOB, "box")
    for _ in range(20):
        world.engine.run(BOB, "box", code="1")
    return EventLog(world.store, world.engine.queries)


def test_everyone_sees_their_own(world: World, log: EventLog) -> None:
    mine = log.page(ANN, limit=None).events
    assert {sandbox_of(event) for event in mine} == {view.sandbox_id for view in world.engine.list(ANN).sandboxes}
    assert {event.topic for event in mine} >= {"name.claimed", "key.claimed", "sandbox.requested"}
    theirs = log.page(BOB, limit=None).events
    assert [*mine, *theirs] == world.store.read(0, 10_000)
    for everything in (ADMIN, system_principal()):
        assert len(log.page(everything, limit=None).events) == len(mine) + len(theirs)
    assert log.page(Principal(user_id="root", tenant_id="other", is_admin=True), limit=None).events == ()


def test_pages_lose_nothing(log: EventLog) -> None:
    whole = log.page(BOB, limit=None).events
    gathered: list[Envelope] = []
    after = 0
    while True:
        page = log.page(BOB, after=after, limit=7)
        gathered += page.events
        if page.after is None:
            break
        after = page.after
    assert gathered == list(whole)
    assert log.page(BOB, after=after, upto=after, limit=7).events == ()


def test_the_last_are_found_however_far_back(log: EventLog) -> None:
    mine, theirs = log.page(ANN, limit=None).events, log.page(BOB, limit=None).events
    head = theirs[-1].position or 0
    assert log.last(ANN, 2, upto=head) == list(mine[-2:])
    assert log.last(ANN, 1000, upto=head) == list(mine)
    assert log.last(BOB, 3, upto=head) == list(theirs[-3:])
    assert log.last(BOB, 0, upto=head) == []
    assert log.last(BOB, 1, upto=head - 1) == [theirs[-2]]
    assert [event.topic for event in log.last(ANN, 2, upto=head, types=["name.claimed"])] == ["name.claimed"] * 2


def test_one_sandbox(world: World, log: EventLog) -> None:
    page = log.of(ANN, "two")
    assert [event.topic for event in page.events] == ["sandbox.requested", "sandbox.started"]
    first = log.of(ANN, "two", limit=1)
    assert log.of(ANN, "two", after=first.after or 0).events == page.events[1:]
    with pytest.raises(SandboxNotFound):
        log.of(ANN, "box")


def test_one_event(log: EventLog) -> None:
    mine, theirs = log.page(ANN, limit=None).events[4], log.page(BOB, limit=None).events[-1]
    assert log.find(ANN, mine.position or 0) == log.find(ANN, mine.event_id) == mine
    for wanted in (theirs.position or 0, theirs.event_id, 0, 10**6, "nothing"):
        with pytest.raises(NotFound):
            log.find(ANN, wanted)


def test_an_unknown_type_is_refused(log: EventLog) -> None:
    for ask in (log.page, lambda principal, types: log.of(principal, "one", types=types)):
        with pytest.raises(InvalidInput, match="no event type"):
            ask(ANN, types=["sandbox.nosuch"])
