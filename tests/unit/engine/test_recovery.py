"""What is left behind by faults and crashes, and how it is put right."""

from __future__ import annotations

import threading
from typing import Any
from unittest.mock import patch

import pytest

from nexus.domain import commands as cmd
from nexus.domain.errors import (
    ExecutionLost,
    NexusError,
    ProviderAuth,
    ProviderError,
    ProviderGone,
    ProviderUnavailable,
    SandboxBusy,
)
from nexus.domain.provider import Capabilities, Observed, Ref
from nexus.engine.service import Engine
from nexus.engine.streams import Cause
from nexus.testing import FakeProvider, FakeRun, Outcome
from tests.support.world import ADMIN, ANN, World


class Crash(BaseException):
    """The process dies here."""


def crashing_at(world: World, step: str) -> Engine:
    def crash(name: str) -> None:
        if name == step:
            raise Crash

    return world.worker("doomed", steps=crash)


# --- create ------------------------------------------------------------------------------------------------------
def test_a_creation_that_fails_is_said_and_leaves_nothing(world: World) -> None:
    world.cloud.fail("ensure", "ProviderAuth")
    with pytest.raises(ProviderAuth):
        world.engine.create(ANN, "data")
    [view] = world.engine.list(ANN).sandboxes
    assert (view.status, view.stop_reason) == ("stopped", "failed")
    assert world.cloud.resources() == []
    world.engine.create(ANN, "data")


def test_a_lost_answer_to_create_makes_one_resource(world: World) -> None:
    world.cloud.lose_answer("ensure")
    world.engine.create(ANN, "data")
    assert len(world.cloud.resources()) == 1


def test_a_busy_provider_is_asked_again(world: World) -> None:
    world.cloud.fail("ensure", "ProviderRateLimited", times=2)
    assert world.engine.create(ANN, "data").status == "active"


@pytest.mark.parametrize("by", ["dead holder", "deadline"])
@pytest.mark.parametrize(("step", "reason"), [("create.intent", "orphaned"), ("create.effect", None)])
def test_a_creation_cut_short_is_adopted_or_ended(world: World, step: str, reason: str | None, by: str) -> None:
    with pytest.raises(Crash):
        crashing_at(world, step).create(ANN, "data")
    assert world.engine.reconcile(ADMIN).taken_over == []
    if by == "dead holder":
        world.kill("doomed")
    else:
        world.pass_time(minutes=4)
    report = world.engine.reconcile(ADMIN)
    [view] = world.engine.list(ANN).sandboxes
    assert report.taken_over == [view.sandbox_id]
    assert view.stop_reason == reason
    assert len(world.cloud.resources()) == (0 if reason else 1)


def test_an_adopter_that_was_overtaken_destroys_nothing(world: World) -> None:
    """Found by the model: it saw nothing to adopt, froze, and woke up when another had adopted what came late."""
    with pytest.raises(Crash):
        crashing_at(world, "create.intent").create(ANN, "data")
    [view] = world.engine.list(ANN).sandboxes
    world.kill("doomed")
    frozen, other = world.worker("frozen"), world.worker("other")
    provider = frozen.providers.get("fake")
    find = provider.find

    def slow(*given: Any) -> Any:
        found = find(*given)
        world.kill("frozen")
        state = other.streams.get(view.sandbox_id)
        other.providers.get("fake").ensure(other._effects.spec(state, 1, other.store.now()))
        other.sweep()
        return found

    with patch.object(provider, "find", slow):
        frozen.sweep()
    [view] = world.engine.list(ANN).sandboxes
    assert view.status == "active"
    assert [seen.sandbox_id for seen in world.cloud.resources()] == [view.sandbox_id]
    assert world.engine.run(ANN, "data", code="1").exit_code == 0


def test_a_retry_with_the_same_key_meets_what_was_recovered(world: World) -> None:
    with pytest.raises(Crash):
        crashing_at(world, "create.effect").create(ANN, "data", idempotency_key="k")
    world.kill("doomed")
    view = world.engine.create(ANN, "data", idempotency_key="k")
    assert (view.status, len(world.cloud.resources())) == ("active", 1)


def test_stop_overtakes_a_creation_and_its_late_resource_goes_too(world: World) -> None:
    ready, go = threading.Event(), threading.Event()

    def hold(step: str) -> None:
        if step == "create.effect":
            ready.set()
            assert go.wait(30)

    outcome: list[Any] = []

    def create() -> None:
        try:
            outcome.append(world.worker("slow", steps=hold).create(ANN, "data"))
        except NexusError as error:
            outcome.append(error.code)

    thread = threading.Thread(target=create)
    thread.start()
    assert ready.wait(30)
    assert world.engine.stop(ANN, "data").status == "stopped"
    go.set()
    thread.join(30)
    assert outcome == ["superseded"]
    assert world.cloud.resources() == []


# --- run ---------------------------------------------------------------------------------------------------------
def test_a_run_with_an_unknown_outcome_is_lost_and_never_repeated(world: World) -> None:
    view = world.engine.create(ANN, "data")
    world.cloud.lose_answer("run")
    with pytest.raises(ExecutionLost):
        world.engine.run(ANN, "data", code="1")
    assert world.story(view.sandbox_id)[-1] == "ExecutionLost"
    assert len(world.cloud.executions()) == 1


@pytest.mark.parametrize("by", ["dead holder", "lease"])
@pytest.mark.parametrize("step", ["run.intent", "run.effect"])
def test_a_run_cut_short_is_lost_once_its_process_is_gone(world: World, step: str, by: str) -> None:
    view = world.engine.create(ANN, "data")
    with pytest.raises(Crash):
        crashing_at(world, step).run(ANN, "data", code="1", timeout=5)
    assert world.engine.reconcile(ADMIN).runs_lost == []
    if by == "dead holder":
        world.kill("doomed")
    else:
        world.pass_time(seconds=16)
    assert len(world.engine.reconcile(ADMIN).runs_lost) == 1
    assert world.story(view.sandbox_id)[-1] == "ExecutionLost"
    assert world.cloud.repeated() == []
    assert world.engine.run(ANN, "data", code="2").exit_code == 0


def test_an_interrupted_run_is_recorded(world: World) -> None:
    def interrupted(run: FakeRun) -> Outcome:
        raise KeyboardInterrupt

    engine = world.worker("w", fake={"behaviour": interrupted})
    view = engine.create(ANN, "data")
    with pytest.raises(KeyboardInterrupt):
        engine.run(ANN, "data", code="1")
    assert "interrupted" in world.events(view.sandbox_id)[-1].event.model_dump_json()


def test_a_run_in_what_is_gone_records_the_loss(world: World) -> None:
    view = world.engine.create(ANN, "data")
    world.cloud.vanish(view.sandbox_id)
    with pytest.raises(ProviderGone):
        world.engine.run(ANN, "data", code="1")
    assert world.engine.status(ANN, view.sandbox_id).stop_reason == "lost"


def test_a_loss_that_another_was_first_to_record_is_still_told_as_a_loss(world: World) -> None:
    """Between the look at the resource and its record somebody else wrote: that is no answer for a caller."""
    view = world.engine.create(ANN, "data")
    world.cloud.vanish(view.sandbox_id)
    inspect = FakeProvider.inspect

    def meanwhile(provider: FakeProvider, ref: Ref) -> Observed:
        seen = inspect(provider, ref)
        noted = cmd.ObserveDrift(kind="noted", detail="by another")
        world.worker("worker-2").streams.execute(view.sandbox_id, noted, Cause.of(ADMIN, "reconcile"))
        return seen

    with patch.object(FakeProvider, "inspect", meanwhile), pytest.raises(ProviderGone):
        world.engine.run(ANN, "data", code="1")
    report = world.engine.reconcile(ADMIN)
    assert report.lost == [view.sandbox_id]


def test_an_open_run_is_not_expired_and_not_paused(world: World) -> None:
    world.engine.create(ANN, "data", ttl_minutes=1)
    seen: list[Any] = []

    def meanwhile(run: FakeRun) -> Outcome:
        world.pass_time(minutes=2)
        seen.append(world.engine.sweep().expired)
        with pytest.raises(SandboxBusy):
            world.engine.pause(ANN, "data")
        return Outcome(0)

    world.worker("w", fake={"behaviour": meanwhile}).run(ANN, "data", code="1", timeout=600)
    assert seen == [[]]
    assert world.engine.status(ANN, "data").status == "active"


def test_stop_during_a_run_ends_both(world: World) -> None:
    view = world.engine.create(ANN, "data")

    def stop(run: FakeRun) -> Outcome:
        world.engine.stop(ANN, "data")
        return Outcome(0)

    with pytest.raises(NexusError):
        world.worker("w", fake={"behaviour": stop}).run(ANN, "data", code="1")
    assert world.story(view.sandbox_id)[-2:] == ["ExecutionLost", "SandboxStopped"]


# --- pause, resume, stop -------------------------------------------------------------------------------------------
def test_a_pause_that_fails_leaves_it_active(world: World) -> None:
    view = world.engine.create(ANN, "data")
    world.cloud.fail("pause", "ProviderInvalidRequest")
    with pytest.raises(ProviderError):
        world.engine.pause(ANN, "data")
    assert world.story(view.sandbox_id)[-2:] == ["PauseRequested", "PauseFailed"]
    assert world.engine.run(ANN, "data", code="1").exit_code == 0


def test_a_resume_that_fails_leaves_it_paused(world: World) -> None:
    world.engine.create(ANN, "data")
    world.engine.pause(ANN, "data")
    world.cloud.fail("resume", "ProviderAuth")
    with pytest.raises(ProviderAuth):
        world.engine.resume(ANN, "data")
    assert world.engine.status(ANN, "data").status == "paused"
    assert world.engine.resume(ANN, "data").status == "active"


@pytest.mark.parametrize("command", ["pause", "resume", "stop"])
@pytest.mark.parametrize("at", ["intent", "effect"])
@pytest.mark.parametrize("survives", [True, False])
def test_an_operation_cut_short_is_carried_on(world: World, command: str, at: str, survives: bool) -> None:
    world.capabilities = Capabilities(
        pause="memory" if survives else "filesystem", ref_survives_pause=survives, lists_paused=survives
    )
    world.engine = world.worker("worker-1")
    view = world.engine.create(ANN, "data")
    if command == "resume":
        world.engine.pause(ANN, "data")
    with pytest.raises(Crash):
        getattr(crashing_at(world, f"{command}.{at}"), command)(ANN, "data")
    world.kill("doomed")
    world.engine.reconcile(ADMIN)
    expected = {"pause": "paused", "resume": "active", "stop": "stopped"}[command]
    assert world.engine.status(ANN, view.sandbox_id).status == expected
    running = [resource for resource in world.cloud.resources() if resource.condition == "running"]
    assert len(running) == (1 if command == "resume" else 0)
    world.engine.stop(ANN, view.sandbox_id)
    world.engine.reconcile(ADMIN)


def test_a_stop_that_cannot_reach_the_provider_is_carried_on_later(world: World) -> None:
    view = world.engine.create(ANN, "data")
    world.cloud.fail("destroy", "ProviderUnavailable", times=None)
    with pytest.raises(ProviderUnavailable):
        world.engine.stop(ANN, "data")
    assert world.engine.status(ANN, "data").status == "active"
    world.cloud.heal()
    world.pass_time(minutes=2)
    world.engine.reconcile(ADMIN)
    assert world.engine.status(ANN, view.sandbox_id).stop_reason == "user"
    assert world.cloud.resources() == []


def test_stop_overtakes_what_cannot_be_carried_on(world: World) -> None:
    view = world.engine.create(ANN, "data")
    world.engine.pause(ANN, "data")
    with pytest.raises(Crash):
        crashing_at(world, "resume.intent").resume(ANN, "data")
    world.kill("doomed")
    world.cloud.lose_answer("resume", when="before", times=None)
    assert world.engine.stop(ANN, "data").status == "stopped"
    assert world.story(view.sandbox_id)[-3:] == ["OperationTakenOver", "StopRequested", "SandboxStopped"]
    assert world.cloud.resources() == []


def test_two_stops_at_once_are_one(world: World) -> None:
    view = world.engine.create(ANN, "data")
    with pytest.raises(Crash):
        crashing_at(world, "stop.intent").stop(ANN, "data")
    world.clock.on_sleep = lambda: world.kill("doomed")
    assert world.engine.stop(ANN, "data").status == "stopped"
    assert world.story(view.sandbox_id).count("StopRequested") == 1


# --- reconcile -----------------------------------------------------------------------------------------------------
def test_a_ghost_is_lost_and_an_outage_is_not(world: World) -> None:
    view = world.engine.create(ANN, "data")
    world.cloud.fail("inspect", "ProviderUnavailable", times=None)
    world.cloud.fail("owned", "ProviderAuth", times=None)
    with world.nothing_recorded():
        assert len(world.engine.reconcile(ADMIN).problems) == 2
    world.cloud.heal()
    world.cloud.vanish(view.sandbox_id)
    assert world.engine.reconcile(ADMIN).lost == [view.sandbox_id]


def test_orphans_go_and_strangers_stay(world: World) -> None:
    kept = world.engine.create(ANN, "kept")
    stopped = world.engine.create(ANN, "gone")
    world.engine.stop(ANN, "gone")
    world.cloud.plant(stopped.sandbox_id, world.store.installation)
    world.cloud.plant("sb_" + "e" * 32, world.store.installation)
    world.cloud.plant("sb_" + "f" * 32, "another-installation")
    assert len(world.engine.reconcile(ADMIN).orphans) == 2
    left = {(resource.sandbox_id, resource.installation) for resource in world.cloud.resources()}
    assert left == {
        (kept.sandbox_id, world.store.installation),
        ("sb_" + "f" * 32, "another-installation"),
    }


def test_drift_is_observed_and_put_right(world: World) -> None:
    view = world.engine.create(ANN, "data")
    world.cloud.pause_behind(view.sandbox_id)
    world.engine.reconcile(ADMIN)
    assert world.story(view.sandbox_id)[-1] == "DriftObserved"
    assert world.cloud.resources()[0].condition == "running"
    world.cloud.restart(view.sandbox_id)
    world.engine.reconcile(ADMIN)
    assert "restarted" in world.events(view.sandbox_id)[-1].event.model_dump_json()
    with world.nothing_recorded():
        world.engine.reconcile(ADMIN)


def test_expiry_happens_once_with_two_workers(world: World) -> None:
    view = world.engine.create(ANN, "data", ttl_minutes=1)
    world.pass_time(minutes=2)
    workers = [world.worker(f"w{number}") for number in range(4)]
    threads = [threading.Thread(target=worker.sweep) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert world.story(view.sandbox_id)[-2:] == ["StopRequested", "SandboxStopped"]
    assert world.story(view.sandbox_id).count("StopRequested") == 1
