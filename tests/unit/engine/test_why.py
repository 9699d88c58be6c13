"""Why a sandbox is as it is: every sentence is held against the events that it is made from."""

from __future__ import annotations

import pytest

from nexus.domain import events as ev
from nexus.domain.errors import ProviderAuth
from nexus.domain.events import Envelope
from nexus.engine.why import explain
from nexus.projections.narrative import at, sentence
from tests.support.world import ADMIN, ANN, World
from tests.unit.engine.test_recovery import Crash, crashing_at


def when(envelope: Envelope) -> str:
    return f"{at(envelope.occurred_at)} (#{envelope.position})"


def test_why_tells_an_expiry_sentence_by_sentence(world: World) -> None:
    view = world.engine.create(ANN, "data", ttl_minutes=10)
    world.engine.run(ANN, "data", code="1")
    world.pass_time(minutes=11)
    world.worker("w", origin=lambda: "worker@far:7").sweep()
    asked, came, started, ended, expiry, stopped = world.events(view.sandbox_id)
    assert isinstance(ended.event, ev.ExecutionFinished)
    told = explain(world.engine.history.replay(ANN, view.sandbox_id))
    here = asked.origin
    assert told.sentences == (
        f"Sandbox 'data' ({view.sandbox_id}) was stopped at {when(stopped)}, because its time to live of 10 min ran "
        f"out at {at(ended.event.expires_at)}.",
        f"system:recovery from worker@far:7 took the expiry at {when(expiry)}.",
        f"Last run: user:ann from {here} started it at {when(started)}; {sentence(ended)}, as user:ann from {here} "
        f"recorded at {when(ended)}.",
    )
    assert came.position not in told.positions
    assert told.positions == tuple(one.position for one in (asked, started, ended, expiry, stopped))
    assert told.chain[-1] == (
        f"#{stopped.position} {at(stopped.occurred_at)} system:recovery from worker@far:7: it is stopped: its time was "
        f"up (led to by #{expiry.position})"
    )


@pytest.mark.parametrize("by", ["dead holder", "deadline"])
def test_why_tells_a_crash_and_a_take_over(world: World, by: str) -> None:
    view = world.engine.create(ANN, "data")
    with pytest.raises(Crash):
        crashing_at(world, "stop.intent").stop(ANN, "data")
    pending = explain(world.engine.history.replay(ANN, view.sandbox_id))
    asked = world.events(view.sandbox_id)[-1]
    assert isinstance(asked.event, ev.StopRequested)
    deadline = at(asked.event.deadline)
    assert pending.sentences == (
        f"Sandbox 'data' ({view.sandbox_id}) is active, and its stop is in flight: user:ann from {asked.origin} asked "
        f"for it at {when(asked)}.",
        f"Attempt 2 is held by doomed until {deadline}.",
        "It never ran code.",
    )
    if by == "deadline":
        world.pass_time(minutes=2)
    world.kill("doomed")
    world.worker("w", origin=lambda: "worker@far:7").reconcile(ADMIN)
    _, _, _, taken, stopped = world.events(view.sandbox_id)
    assert (taken.correlation_id, taken.causation_id) == (asked.correlation_id, asked.event_id)
    assert (stopped.correlation_id, stopped.causation_id) == (asked.correlation_id, taken.event_id)
    because = (
        "the process that carried it out was gone" if by != "deadline" else f"its deadline of {deadline} had passed"
    )
    told = explain(world.engine.history.replay(ANN, view.sandbox_id))
    assert told.sentences == (
        f"Sandbox 'data' ({view.sandbox_id}) was stopped at {when(stopped)}, because user:ann from {asked.origin} "
        f"asked for it at {when(asked)}.",
        f"The stop that user:ann had asked for from {asked.origin} at {when(asked)} was left unfinished; "
        f"system:recovery from worker@far:7 took it over at {when(taken)}, because {because}; what "
        f"came of it: it is stopped (#{stopped.position}).",
        "It never ran code.",
    )
    assert told.chain[-2] == (
        f"#{taken.position} {at(taken.occurred_at)} system:recovery from worker@far:7: took over the stop, because "
        f"{because} (led to by #{asked.position})"
    )


def test_a_take_over_of_a_take_over_and_what_came_before_the_next_resume(world: World) -> None:
    view = world.engine.create(ANN, "data")
    world.engine.pause(ANN, "data")
    with pytest.raises(Crash):
        crashing_at(world, "resume.intent").resume(ANN, "data")
    world.kill("doomed")

    def crash(step: str) -> None:
        if step == "resume.effect":
            raise Crash

    with pytest.raises(Crash):
        world.worker("second", steps=crash, origin=lambda: "worker@b:2").sweep()
    (asked, first) = world.events(view.sandbox_id)[-2:]
    stuck = explain(world.engine.history.replay(ANN, view.sandbox_id)).sentences
    told = f"The resume that user:ann had asked for from {asked.origin} at {when(asked)} was left unfinished; "
    gone = "because the process that carried it out was gone"
    by_first = f"system:recovery from worker@b:2 took it over at {when(first)}, {gone}"
    assert stuck[2] == f"{told}{by_first}; it is in flight still."
    world.kill("second")
    world.worker("third", origin=lambda: "worker@c:3").sweep()
    second, resumed = world.events(view.sandbox_id)[-2:]
    assert (second.causation_id, resumed.causation_id) == (first.event_id, second.event_id)
    assert {one.correlation_id for one in (first, second, resumed)} == {asked.correlation_id}
    world.engine.pause(ANN, "data")
    world.engine.resume(ADMIN, view.sandbox_id)
    said = explain(world.engine.history.replay(ANN, view.sandbox_id)).sentences
    assert said[1:3] == (
        f"{told}{by_first}; that was left unfinished in its turn.",
        f"{told}system:recovery from worker@c:3 took it over at {when(second)}, {gone}; what came of it: "
        f"{sentence(resumed)} (#{resumed.position}).",
    )


def test_a_lost_run_stays_in_the_story_of_who_began_it(world: World) -> None:
    view = world.engine.create(ANN, "data")
    with pytest.raises(Crash):
        crashing_at(world, "run.intent").run(ANN, "data", code="1")
    for _ in range(40):  # the beginning is looked for further back than the first look goes
        world.engine.extend(ANN, "data", 1000)
        world.pass_time(seconds=1)
    world.kill("doomed")
    world.engine.sweep()
    events = world.events(view.sandbox_id)
    (started,) = (one for one in events if isinstance(one.event, ev.ExecutionStarted))
    (lost,) = (one for one in events if isinstance(one.event, ev.ExecutionLost))
    assert (lost.correlation_id, lost.causation_id) == (started.correlation_id, started.event_id)
    assert (lost.actor, lost.command) == ("system:recovery", "settle")
    told = explain(world.engine.history.replay(ANN, view.sandbox_id))
    assert told.sentences[-1] == (
        f"Last run: user:ann from {started.origin} started it at {when(started)}; {sentence(lost)}, as system:recovery "
        f"from {lost.origin} recorded at {when(lost)}."
    )


def test_why_tells_what_else_there_is(world: World) -> None:
    def first(reference: str) -> str:
        return explain(world.engine.history.replay(ANN, reference)).sentences[0]

    view = world.engine.create(ANN, "data")
    requested, started = world.events(view.sandbox_id)
    assert first("data").startswith(
        f"Sandbox 'data' ({view.sandbox_id}) is active since {when(started)}, because user:ann from {requested.origin} "
        f"asked for it at {when(requested)}; without another run it expires at "
    )
    world.engine.pause(ANN, "data")
    asked, paused = world.events(view.sandbox_id)[-2:]
    assert first("data").startswith(f"Sandbox 'data' ({view.sandbox_id}) is paused since {when(paused)}, because ")
    assert f"asked for it at {when(asked)}; " in first("data")
    world.engine.resume(ANN, "data")
    asked, resumed = world.events(view.sandbox_id)[-2:]
    assert f"is active since {when(resumed)}, because user:ann from {asked.origin} asked for it at {when(asked)}" in (
        first("data")
    )
    world.engine.pause(ANN, "data")
    world.pass_time(days=31)
    world.engine.sweep()
    assert "because it had been paused until its greatest age of 720 h was reached." in first(view.sandbox_id)
    lost = world.engine.create(ANN, "other")
    world.cloud.vanish(lost.sandbox_id)
    world.engine.reconcile(ADMIN)
    told = explain(world.engine.history.replay(ANN, lost.sandbox_id))
    assert "because its resource was gone: the fake resource is gone." in told.sentences[0]
    assert told.sentences[1].startswith("system:reconcile from ")
    world.cloud.fail("ensure", "ProviderAuth")
    with pytest.raises(ProviderAuth):
        world.engine.create(ANN, "third")
    failed = world.engine.list(ANN, name="third").sandboxes[0].sandbox_id
    assert "because it could not be brought up: " in first(failed)
