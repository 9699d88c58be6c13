"""Usage as it is asked of a store: whose it is, and what it was at a moment."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from nexus.domain.errors import InvalidInput, NotAllowed
from nexus.domain.values import Principal
from nexus.engine.history import NOW, Moment
from nexus.engine.usage import Report, Usage, report
from tests.support.world import ADMIN, ANN, BOB, World


def asked(
    world: World, principal: Principal = ANN, moment: Moment = NOW, by: str = "sandbox", **more: object
) -> Report:
    return report(world.engine.log, world.store, principal, by=by, moment=moment, **more)  # type: ignore[arg-type]


def seconds(found: Usage) -> tuple[float, float]:
    return found.active_seconds, found.paused_seconds


def spans(world: World, sandbox_id: str) -> dict[str, datetime]:
    """Event name → when it happened."""
    return {type(e.event).__name__: e.occurred_at for e in world.events(sandbox_id)}


def test_everyone_is_told_their_own_and_an_admin_the_tenants(world: World) -> None:
    mine = world.engine.create(ANN, "box").sandbox_id
    other = world.engine.create(BOB, "box").sandbox_id
    world.engine.create(Principal(user_id="ann", tenant_id="elsewhere"), "box")
    assert list(asked(world).groups) == [mine]
    assert set(asked(world, ADMIN, all_users=True).groups) == {mine, other}
    assert asked(world, ADMIN).groups == {}
    with pytest.raises(NotAllowed):
        asked(world, all_users=True)
    with pytest.raises(InvalidInput):
        asked(world, by="month")


def test_as_of_a_time_what_had_not_ended_counts_up_to_then(world: World) -> None:
    box = world.engine.create(ANN, "box", ttl_minutes=1440).sandbox_id
    world.pass_time(minutes=10)
    world.engine.pause(ANN, "box")
    world.pass_time(minutes=30)
    world.engine.resume(ANN, "box")
    world.pass_time(minutes=5)
    world.engine.stop(ANN, "box")
    world.pass_time(hours=5)
    at = spans(world, box)
    # Positions and recorded times are the database's own, which no test moves: by the positions of the events.
    position = {type(e.event).__name__: e.position for e in world.events(box)}
    for event, active, paused in (
        ("SandboxStarted", 0.0, 0.0),
        ("SandboxPaused", (at["SandboxPaused"] - at["SandboxStarted"]).total_seconds(), 0.0),
        (
            "SandboxResumed",
            (at["SandboxPaused"] - at["SandboxStarted"]).total_seconds(),
            (at["SandboxResumed"] - at["SandboxPaused"]).total_seconds(),
        ),
    ):
        found = asked(world, moment=Moment(position=position[event])).total
        assert seconds(found) == pytest.approx((active, paused)), event
    now = asked(world).total
    assert now.active_seconds == pytest.approx(
        (at["SandboxPaused"] - at["SandboxStarted"] + (at["SandboxStopped"] - at["SandboxResumed"])).total_seconds()
    )
    assert asked(world, moment=Moment(position=10**17)).total == now
    assert asked(world, moment=Moment(position=0)).groups == {}


def test_as_of_a_position_a_run_is_still_running(world: World) -> None:
    box = world.engine.create(ANN, "box").sandbox_id
    world.engine.run(ANN, "box", code="1")
    started = next(e for e in world.events(box) if type(e.event).__name__ == "ExecutionStarted")
    assert asked(world, moment=Moment(time=started.recorded_at)).total.outcomes["running"] == 1  # type: ignore[index]
    position = {type(e.event).__name__: e.position for e in world.events(box)}
    before, during, after = (
        asked(world, moment=Moment(position=place)).total.outcomes
        for place in (position["SandboxStarted"], position["ExecutionStarted"], position["ExecutionFinished"])
    )
    assert [sum(found.values()) for found in (before, during, after)] == [0, 1, 1]
    assert (during["running"], after["succeeded"]) == (1, 1)  # type: ignore[index]  # names are what they equal


def test_as_of_another_sandboxs_event_one_that_runs_on_has_run_until_then(world: World) -> None:
    box = world.engine.create(ANN, "box", ttl_minutes=1440).sandbox_id
    world.pass_time(hours=2)
    other = world.engine.create(BOB, "box").sandbox_id
    world.pass_time(hours=2)
    last = world.events(other)[-1]
    found = asked(world, moment=Moment(position=last.position)).total
    assert found.active_seconds == (last.occurred_at - spans(world, box)["SandboxStarted"]).total_seconds() > 7199


def test_as_of_a_time_in_the_past_nothing_later_counts(world: World) -> None:
    box = world.engine.create(ANN, "box", ttl_minutes=1440).sandbox_id
    started = world.events(box)[-1]
    assert started.recorded_at is not None
    world.engine.run(ANN, "box", code="1")
    before = asked(world, moment=Moment(time=started.recorded_at))
    assert before.total.runs == 0
    # A database's clock may be a little behind the one by which the event occurred.
    assert before.total.active_seconds <= max(0.0, (started.recorded_at - started.occurred_at).total_seconds())
    assert asked(world, moment=Moment(time=started.recorded_at - timedelta(days=1))).groups == {}


def test_days_of_one_that_runs_on_and_was_paused_over_midnight(world: World) -> None:
    """Three days and a bit from now, paused for the second one: the days' parts are the whole."""
    box = world.engine.create(ANN, "box", ttl_minutes=1440).sandbox_id
    world.pass_time(hours=20)
    world.engine.pause(ANN, "box")
    world.pass_time(hours=30)
    world.engine.resume(ANN, "box")
    world.pass_time(hours=3)
    at, now = spans(world, box), world.store.now()
    found = asked(world, by="day", until=now)
    midnights = (now.date() - at["SandboxStarted"].date()).days
    assert len(found.groups) == midnights + 1 >= 3
    assert all(sum(seconds(day)) <= 86_400 for day in found.groups.values())
    assert sum(day.paused_seconds for day in found.groups.values()) == pytest.approx(30 * 3600, abs=5)
    assert sum(day.active_seconds for day in found.groups.values()) == pytest.approx(23 * 3600, abs=5)
    assert sum(sum(seconds(day)) for day in found.groups.values()) == pytest.approx(
        (now - at["SandboxStarted"]).total_seconds()
    )


def test_costs_are_told_for_each_provider(world: World) -> None:
    world.engine.create(ANN, "box", ttl_minutes=1440)
    world.pass_time(hours=2)
    told = asked(world, by="user").total.to_dict({"fake": 0.5})
    assert told["providers"]["fake"]["active_seconds"] == told["active_seconds"] == pytest.approx(7200, abs=5)
    assert told["providers"]["fake"]["cost"] == told["cost"] == pytest.approx(1.0, abs=0.01)
    unpriced = asked(world, by="user").total.to_dict({})
    assert (unpriced["providers"]["fake"]["cost"], unpriced["cost"], unpriced["unpriced"]) == (None, None, ["fake"])
