"""The engine over the fake cloud: what each command records, does and answers."""

from __future__ import annotations

from math import nan

import pytest

from nexus.domain.errors import (
    ExecutionLost,
    ExecutionTimedOut,
    IdempotencyMismatch,
    IllegalTransition,
    InvalidInput,
    NameTaken,
    NotAllowed,
    ProviderUnavailable,
    ProviderUnsupported,
    SandboxNotFound,
    StoreUnavailable,
)
from nexus.domain.provider import Capabilities, Limits
from nexus.domain.values import Principal
from nexus.testing import FakeRun, Outcome
from tests.support.world import ADMIN, ANN, BOB, World


def test_create_records_intent_then_outcome_and_the_list_is_right_at_once(world: World) -> None:
    view = world.engine.create(ANN, "data", ttl_minutes=20, labels={"team": "x"})
    assert world.story(view.sandbox_id) == ["SandboxRequested", "SandboxStarted"]
    shown = view.to_dict(world.store.now())
    assert (shown["name"], shown["status"], shown["ttl_minutes"]) == ("data", "active", 20)
    assert [v.sandbox_id for v in world.engine.list(ANN).sandboxes] == [view.sandbox_id]
    assert world.engine.status(ANN, "data") == view


def test_events_of_one_command_tell_one_story(world: World) -> None:
    view = world.engine.create(ANN, "data")
    requested, started = world.events(view.sandbox_id)
    assert requested.correlation_id == started.correlation_id
    assert (requested.causation_id, started.causation_id) == (None, requested.event_id)
    assert (requested.actor, requested.command) == ("user:ann", "create")


def test_run_records_digests_and_moves_the_end(world: World) -> None:
    view = world.engine.create(ANN, "data", ttl_minutes=10)
    world.pass_time(minutes=5)
    execution = world.engine.run(ANN, view.sandbox_id, code="print('hello')")
    assert (execution.stdout, execution.exit_code) == ("print('hello')", 0)
    assert world.story(view.sandbox_id)[2:] == ["ExecutionStarted", "ExecutionFinished"]
    assert "hello" not in "".join(envelope.event.model_dump_json() for envelope in world.events(view.sandbox_id))
    left = world.engine.status(ANN, "data").to_dict(world.store.now())["expires_at"]
    assert left > view.to_dict(world.store.now())["expires_at"]


def test_failing_code_is_a_result(world: World) -> None:
    engine = world.worker("w", fake={"behaviour": lambda run: Outcome(3, stderr=b"boom")})
    view = engine.create(ANN, "data")
    execution = engine.run(ANN, view.sandbox_id, code="raise SystemExit(3)")
    assert (execution.exit_code, execution.stderr) == (3, "boom")


def test_a_time_out_raises_with_the_partial_output_and_is_recorded(world: World) -> None:
    def sleepy(run: FakeRun) -> Outcome:
        run.emit("stdout", b"so far")
        run.wait(60)
        return Outcome(0)

    engine = world.worker("w", fake={"behaviour": sleepy})
    view = engine.create(ANN, "data")
    with pytest.raises(ExecutionTimedOut, match=r"^Code execution exceeded 1 second timeout$") as caught:
        engine.run(ANN, view.sandbox_id, code="…", timeout=1)
    assert caught.value.stdout == "so far"
    assert world.story(view.sandbox_id)[-1] == "ExecutionTimedOut"


def test_pause_resume_stop(world: World) -> None:
    view = world.engine.create(ANN, "data", ttl_minutes=10)
    assert world.engine.pause(ANN, "data").status == "paused"
    with world.nothing_recorded():
        assert world.engine.pause(ANN, "data").status == "paused"
        with pytest.raises(IllegalTransition, match="Cannot run a sandbox that is paused"):
            world.engine.run(ANN, "data", code="1")
    world.pass_time(hours=5)
    assert world.engine.resume(ANN, "data").status == "active"
    with world.nothing_recorded():
        world.engine.resume(ANN, "data")
    stopped = world.engine.stop(ANN, "data")
    assert (stopped.status, stopped.stop_reason) == ("stopped", "user")
    assert world.cloud.resources() == []
    with world.nothing_recorded():
        assert world.engine.stop(ANN, view.sandbox_id).status == "stopped"
        with pytest.raises(IllegalTransition):
            world.engine.resume(ANN, view.sandbox_id)


def test_a_name_is_free_again_after_stop_and_only_then(world: World) -> None:
    first = world.engine.create(ANN, "data")
    with world.nothing_recorded(), pytest.raises(NameTaken, match="'data' already exists for user ann"):
        world.engine.create(ANN, "data")
    assert world.engine.create(BOB, "data").user_id == "bob"
    world.engine.stop(ANN, first.sandbox_id)
    assert world.engine.create(ANN, "data").sandbox_id != first.sandbox_id


def test_an_expired_holder_gives_its_name_up(world: World) -> None:
    first = world.engine.create(ANN, "data", ttl_minutes=1)
    world.pass_time(minutes=2)
    second = world.engine.create(ANN, "data")
    assert second.sandbox_id != first.sandbox_id
    assert world.engine.status(ANN, first.sandbox_id).stop_reason == "expired"


def test_an_idempotency_key_stands_for_one_sandbox(world: World) -> None:
    first = world.engine.create(ANN, "data", idempotency_key="k1", env={"A": "1"})
    with world.nothing_recorded():
        assert world.engine.create(ANN, "data", idempotency_key="k1", env={"A": "1"}) == first
        with pytest.raises(IdempotencyMismatch):
            world.engine.create(ANN, "data", idempotency_key="k1", env={"A": "2"})
    assert len(world.cloud.resources()) == 1


def test_get_or_create_returns_the_live_one(world: World) -> None:
    first = world.engine.get_or_create(ANN, "data")
    assert world.engine.get_or_create(ANN, "data").sandbox_id == first.sandbox_id
    world.engine.stop(ANN, "data")
    assert world.engine.get_or_create(ANN, "data").sandbox_id != first.sandbox_id


@pytest.mark.parametrize("command", ["run", "pause", "resume", "stop", "extend", "status", "read_file", "verify"])
def test_anothers_sandbox_answers_as_an_unknown_one(world: World, command: str) -> None:
    view = world.engine.create(ANN, "data")
    arguments = {"extend": (5,), "read_file": ("/x",)}.get(command, ())
    more = {"code": "1"} if command == "run" else {}

    def ask(who: Principal, reference: str) -> str:
        with pytest.raises(SandboxNotFound) as caught:
            getattr(world.engine, command)(who, reference, *arguments, **more)
        return str(caught.value).replace(reference, "…")

    with world.nothing_recorded():
        assert ask(BOB, view.sandbox_id) == ask(BOB, "sb_" + "0" * 32)
        elsewhere = Principal(user_id="ann", tenant_id="other", is_admin=True)
        assert ask(elsewhere, view.sandbox_id) == ask(BOB, "sb_" + "0" * 32)


def test_an_admin_may(world: World) -> None:
    view = world.engine.create(ANN, "data")
    assert world.engine.stop(ADMIN, view.sandbox_id).status == "stopped"


def test_operating_the_installation_needs_an_operator(world: World) -> None:
    with pytest.raises(NotAllowed):
        world.engine.reconcile(ANN)
    assert world.engine.reconcile(ADMIN).problems == []


def test_an_effect_that_takes_long_to_fail_is_not_tried_for_ever(world: World) -> None:
    world.cloud.fail("ensure", "ProviderUnavailable", times=None)
    with pytest.raises(ProviderUnavailable):
        world.engine.create(ANN, "quick")
    assert len(world.cloud.calls("ensure")) == 4

    def long() -> None:
        world.clock.slept += 60

    world.clock.on_sleep = long
    with pytest.raises(ProviderUnavailable):
        world.engine.create(ANN, "slow")
    assert len(world.cloud.calls("ensure")) == 4 + 2


def test_a_deadline_that_the_provider_cannot_be_told_stands(world: World) -> None:
    view = world.engine.create(ANN, "data", ttl_minutes=10)
    world.cloud.fail("extend", "ProviderUnavailable")
    longer = world.engine.extend(ANN, "data", 60)
    assert world.story(view.sandbox_id)[-1] == "SandboxExtended"
    assert world.engine.status(ANN, "data").expires_at == longer.expires_at


def test_extend_only_lengthens(world: World) -> None:
    view = world.engine.create(ANN, "data", ttl_minutes=10)
    with world.nothing_recorded():
        assert world.engine.extend(ANN, "data", 5).expires_at == view.expires_at
    longer = world.engine.extend(ANN, "data", 60)
    assert longer.expires_at is not None
    assert view.expires_at is not None
    assert longer.expires_at > view.expires_at


def test_a_paused_sandbox_keeps_its_remaining_time(world: World) -> None:
    world.engine.create(ANN, "data", ttl_minutes=10)
    world.pass_time(minutes=4)
    world.engine.pause(ANN, "data")
    world.pass_time(days=2)
    assert world.engine.sweep().expired == []
    world.engine.resume(ANN, "data")
    world.pass_time(minutes=5)
    assert world.engine.sweep().expired == []
    world.pass_time(minutes=2)
    assert len(world.engine.sweep().expired) == 1


def test_a_paused_sandbox_has_an_absolute_end(world: World) -> None:
    view = world.engine.create(ANN, "data")
    world.engine.pause(ANN, "data")
    world.pass_time(days=31)
    assert world.engine.sweep().expired == [view.sandbox_id]
    assert world.cloud.resources() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl_minutes": 0}, {"ttl_minutes": True}, {"ttl_minutes": "10"}, {"ttl_minutes": 1.5}, {"ttl_minutes": 10**9},
        {"labels": {"nexus.x": "1"}}, {"env": {"A=B": "1"}}, {"network": "some"}, {"template": "-v"},
        {"idempotency_key": ""}, {"provider": "a b"}, {"limits": Limits(memory_mb=-1)}, {"limits": Limits(cpus=nan)},
    ],
)  # fmt: skip
def test_wrong_input_records_nothing_and_does_nothing(world: World, wrong: dict[str, object]) -> None:
    with world.nothing_recorded(), pytest.raises(InvalidInput):
        world.engine.create(ANN, "data", **wrong)  # type: ignore[arg-type]
    assert world.cloud.calls() == []


def test_what_a_provider_cannot_do_is_refused_before_an_event(world: World) -> None:
    world.capabilities = Capabilities(pause="none", network=("none",), languages=("python",), argv=False, stdin=False)
    engine = world.worker("w")
    engine.create(ANN, "data", network="none")
    with world.nothing_recorded():
        for attempt in (
            lambda: engine.pause(ANN, "data"),
            lambda: engine.create(ANN, "other", network="full"),
            lambda: engine.run(ANN, "data", code="1", language="bash"),
            lambda: engine.run(ANN, "data", argv=["ls"]),
            lambda: engine.run(ANN, "data", code="1", stdin=b"x"),
            lambda: engine.run(ANN, "data", code="1", session="work"),
        ):
            with pytest.raises(ProviderUnsupported):
                attempt()


def test_a_network_that_cannot_be_offered_is_missing_and_said(world: World) -> None:
    world.capabilities = Capabilities(network=("none",))
    view = world.worker("w").create(ANN, "data")
    assert view.network == "none"
    assert "no network" in view.notes[0]


def test_env_values_reach_the_sandbox_and_no_event(world: World) -> None:
    view = world.engine.create(ANN, "data", env={"TOKEN": "canary-7f3a"})
    assert world.cloud.resources()[0].env["TOKEN"] == "canary-7f3a"
    assert b"canary-7f3a" not in (world.folder / "nexus.db").read_bytes()
    assert "TOKEN" in world.events(view.sandbox_id)[0].event.model_dump_json()


def test_a_run_whose_outcome_cannot_be_recorded_is_lost_not_undone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailable("The store cannot grow: the disk is full")

    def fill_the_disk(step: str) -> None:
        if step == "run.effect":
            monkeypatch.setattr(world.store, "append", refuse, raising=False)

    engine = world.worker("w", steps=fill_the_disk)
    view = engine.create(ANN, "data")
    with pytest.raises(ExecutionLost, match=r"ended with exit code 0, but that could not be recorded: .*disk is full"):
        engine.run(ANN, view.sandbox_id, code="print(1)")
    assert world.story(view.sandbox_id)[-1] == "ExecutionStarted"
