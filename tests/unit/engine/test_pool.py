"""The warm pool: kept in number, given away once, accounted for in the log, put right after every death."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from nexus.adapters.stores.sqlite.reading import SQLiteReading
from nexus.domain import pool
from nexus.domain import pool_events as pe
from nexus.domain.errors import NotAllowed, ProviderUnavailable
from nexus.domain.pool import PoolPlan
from nexus.domain.ports import EventStore, Reading
from nexus.domain.provider import Limits as ResourceLimits
from nexus.domain.provider import Ref
from nexus.domain.values import MemberState, RetireReason
from nexus.domain.warm_pool import MemberSpec
from nexus.engine.audit.evidence import LogEvidence
from nexus.engine.audit.sealer import Sealer
from nexus.engine.audit.verifier import verify as verify_audit
from nexus.engine.eventlog import EventLog
from nexus.engine.history import NOW, Moment
from nexus.engine.recovery import Report
from nexus.engine.service import Engine
from nexus.engine.usage import usage
from nexus.engine.why import explain
from nexus.engine.worker import Background, Schedule, Worker
from nexus.projections.catalog import named
from nexus.projections.narrative import sentence
from nexus.projections.pool import MemberView, PoolQueries
from nexus.projections.verify import verify
from nexus.testing import FakePoolProvider
from tests.support.world import ADMIN, ANN, BOB, World

PLAN = PoolPlan("fake", {"default": 2}, total=10)


class Killed(BaseException):
    """The process is gone: nothing that it had left to do is done."""


class PoolWorld(World):
    """A world whose provider keeps a pool."""

    provider_kind = FakePoolProvider

    def keeper(self, name: str = "keeper", plan: PoolPlan | None = PLAN, die_at: str = "") -> Engine:
        """An engine that keeps a pool, and dies at a step."""

        def step(passed: str) -> None:
            if passed == die_at:
                raise Killed

        return self.worker(name, pool=plan, steps=step)

    def members(self) -> list[MemberView]:
        return PoolQueries(self.store.views).members()

    def statuses(self) -> Counter[str]:
        return Counter(member.status.value for member in self.members())

    def resources(self) -> set[str]:
        return {r.member_id for r in self.cloud.resources() if r.member_id and not r.sandbox_id}

    def told(self, member_id: str) -> list[str]:
        return [envelope.topic.removeprefix("pool.member_") for envelope in self.store.load(pool.stream_id(member_id))]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[PoolWorld]:
    world = PoolWorld(tmp_path)
    yield world
    assert verify(world.store, named("pool")).is_equal
    world.close()


@pytest.fixture
def another() -> EventStore | None:
    """The store of a second installation; None for an embedded one in its folder."""
    return None


@pytest.fixture
def open_reading(world: PoolWorld) -> Callable[[], Reading]:
    """An auditor's look at the world's store."""
    return lambda: SQLiteReading(world.folder / "nexus.db")


# --- filling -----------------------------------------------------------------------------------------------------
def test_it_is_brought_to_its_size_and_no_further(world: PoolWorld) -> None:
    report = world.keeper().pool.tend()
    assert (len(report.pool), report.problems) == (2, [])
    assert world.statuses() == {"ready": 2}
    with world.nothing_recorded():
        world.keeper("another").pool.tend()
    assert {member.member_id for member in world.members()} == world.resources()
    assert world.told(world.members()[0].member_id) == ["requested", "ready"]


def test_the_intent_is_recorded_before_the_resource_is_made(world: PoolWorld) -> None:
    with pytest.raises(Killed):
        world.keeper(die_at="pool.intent").pool.tend()
    assert world.statuses() == {"requested": 1}
    assert world.resources() == set()


def test_many_that_fill_at_once_never_make_too_many(world: PoolWorld) -> None:
    keepers = [world.keeper(f"keeper-{number}") for number in range(6)]
    with ThreadPoolExecutor(6) as threads:
        for report in threads.map(lambda keeper: keeper.pool.tend(), keepers):
            assert report.problems == []
    assert world.statuses() == {"ready": 2}
    assert len(world.resources()) == 2
    assert len(world.cloud.calls("prepare")) == 2


def test_all_templates_together_are_bounded(world: PoolWorld) -> None:
    world.keeper(plan=PoolPlan("fake", {"default": 2, "data": 5}, total=3)).pool.tend()
    assert Counter(member.template for member in world.members()) == {"default": 2, "data": 1}


def test_what_is_no_longer_wanted_is_removed(world: PoolWorld) -> None:
    world.keeper(plan=PoolPlan("fake", {"default": 3, "data": 1}, total=10)).pool.tend()
    world.keeper("smaller", plan=PoolPlan("fake", {"default": 1}, total=10)).pool.tend()
    (left,) = world.members()
    assert (left.template, left.slot) == ("default", 0)
    assert world.resources() == {left.member_id}


def test_a_template_that_was_rebuilt_is_made_anew(world: PoolWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = world.keeper()
    keeper.pool.tend()
    old = world.resources()
    monkeypatch.setattr(FakePoolProvider, "image", "2")
    keeper.create(ANN, "box")
    assert world.resources() == old, "one of the old image is not taken"
    keeper.pool.tend()
    assert world.statuses() == {"ready": 2}
    assert not world.resources() & old
    assert {world.told(member)[-2:] == ["retired", "removed"] for member in old} == {True}


def test_what_nobody_takes_is_replaced_in_time(world: PoolWorld) -> None:
    keeper = world.keeper()
    keeper.pool.tend()
    old = world.resources()
    world.pass_time(seconds=PLAN.lifetime - 10)
    keeper.create(ANN, "box")
    assert world.resources() == old, "one that may end at any moment is not taken"
    keeper.pool.tend()
    assert world.statuses() == {"ready": 2}
    assert not world.resources() & old


def test_a_failure_is_recorded_and_rests(world: PoolWorld) -> None:
    keeper = world.keeper()
    world.cloud.fail("prepare", "ProviderUnavailable", times=None)
    report = keeper.pool.tend()
    assert len(report.problems) == 1
    assert world.members() == []
    head = world.store.head()
    assert keeper.pool.tend().problems == []
    assert world.store.head() == head, "it does not try again at once"
    world.clock.sleep(3)
    assert len(keeper.pool.tend().problems) == 1
    (event,) = [e.event for e in world.store.read(0) if isinstance(e.event, pe.PoolMemberRetired)][-1:]
    assert isinstance(event, pe.PoolMemberRetired)
    assert event.reason is RetireReason.FAILED
    world.cloud.heal()
    world.clock.sleep(20)
    assert keeper.pool.tend().problems == []
    assert world.statuses() == {"ready": 2}


def test_a_failure_is_recorded_whatever_was_said(world: PoolWorld) -> None:
    keeper = world.keeper()

    def prepare(_: MemberSpec) -> Ref:
        raise ProviderUnavailable("not a letter: \udcff, and none: \0")

    keeper.providers.get("fake").prepare = prepare  # type: ignore[attr-defined]
    assert len(keeper.pool.tend().problems) == 1
    (event,) = [e.event for e in world.store.read(0) if isinstance(e.event, pe.PoolMemberRetired)]
    assert isinstance(event, pe.PoolMemberRetired)
    assert (event.reason, event.detail) == (RetireReason.FAILED, "not a letter: \\udcff, and none: \\x00")


def test_a_failure_says_what_to_do(world: PoolWorld) -> None:
    keeper = world.keeper()

    def prepare(_: MemberSpec) -> Ref:
        raise ProviderUnavailable("The daemon does not answer", hint="Start it.")

    keeper.providers.get("fake").prepare = prepare  # type: ignore[attr-defined]
    assert keeper.pool.tend().problems == ["pool of template default: The daemon does not answer. Start it."]


def test_a_provider_without_a_pool_says_so(tmp_path: Path, another: EventStore | None) -> None:
    plain = World(tmp_path / "other", store=another)
    report = plain.worker("keeper", pool=PLAN).pool.tend()
    assert report.problems == ["pool: Provider fake keeps no warm pool"]
    assert plain.store.head() == 0
    plain.close()


# --- taking ------------------------------------------------------------------------------------------------------
def test_a_create_takes_one_in_the_append_that_requests_the_sandbox(world: PoolWorld) -> None:
    world.keeper().pool.tend()
    ready = world.resources()
    view = world.engine.create(ANN, "box", env={"TOKEN": "x"})
    (resource,) = [r for r in world.cloud.resources() if r.sandbox_id]
    assert (resource.sandbox_id, resource.env, resource.name) == (view.sandbox_id, {"TOKEN": "x"}, "box")
    assert world.cloud.calls("ensure") == []
    assert world.resources() == ready - {resource.member_id}
    (taken,) = [e for e in world.store.read(0) if isinstance(e.event, pe.PoolMemberTaken)]
    (requested,) = [e for e in world.events(view.sandbox_id) if e.topic == "sandbox.requested"]
    assert taken.event == pe.PoolMemberTaken(sandbox_id=view.sandbox_id)
    assert (taken.actor, taken.correlation_id) == (requested.actor, requested.correlation_id)
    assert abs((taken.position or 0) - (requested.position or 0)) <= 2
    assert world.engine.run(ANN, "box", code="1").exit_code == 0
    world.engine.stop(ANN, "box")
    assert world.engine.reconcile(ADMIN).to_dict() == Report().to_dict()


def test_other_limits_or_another_network_are_not_taken_from_it(world: PoolWorld) -> None:
    world.keeper().pool.tend()
    world.engine.create(ANN, "large", limits=ResourceLimits(memory_mb=4096))
    world.engine.create(ANN, "closed", network="none")
    assert world.statuses() == {"ready": 2}


def test_many_at_once_never_get_the_same_one(world: PoolWorld) -> None:
    world.keeper(plan=PoolPlan("fake", {"default": 4}, total=10)).pool.tend()
    engines = [world.worker(f"api-{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        views = list(threads.map(lambda n: engines[n].create(ANN, f"box-{n}"), range(8)))
    takings = [e.event for e in world.store.read(0) if isinstance(e.event, pe.PoolMemberTaken)]
    assert len({view.sandbox_id for view in views}) == 8
    assert len(takings) == len({event.sandbox_id for event in takings}) == 4
    assert len([r for r in world.cloud.resources() if r.sandbox_id]) == 8
    assert world.resources() == set()


def test_one_that_cannot_become_the_sandbox_is_removed_and_another_made(world: PoolWorld) -> None:
    world.keeper(plan=PoolPlan("fake", {"default": 1}, total=1)).pool.tend()
    (member,) = world.members()
    world.cloud.fail("adopt", "ProviderGone")
    assert world.engine.create(ANN, "box").status == "active"
    assert len(world.cloud.calls("ensure")) == 1
    assert world.told(member.member_id) == ["requested", "ready", "taken", "retired", "removed"]
    assert world.resources() == set()


def test_an_answer_that_was_lost_leaves_one_resource(world: PoolWorld) -> None:
    """It had become the sandbox, and nobody heard: the second way finds it by the sandbox's id."""
    world.keeper(plan=PoolPlan("fake", {"default": 1}, total=1)).pool.tend()
    world.cloud.fail("adopt", "ProviderOutcomeUnknown", when="after")
    view = world.engine.create(ANN, "box")
    assert [r.sandbox_id for r in world.cloud.resources()] == [view.sandbox_id]
    assert world.engine.reconcile(ADMIN).to_dict() == Report().to_dict()


# --- reconcile ---------------------------------------------------------------------------------------------------
STEPS = ["pool.intent", "pool.effect", "pool.retired", "pool.withdrawn"]


@pytest.mark.parametrize("step", STEPS)
def test_whoever_dies_while_filling_leaves_nothing_after_one_reconcile(world: PoolWorld, step: str) -> None:
    if step in ("pool.retired", "pool.withdrawn"):
        world.keeper("before", plan=PoolPlan("fake", {"default": 2}, total=2)).pool.tend()
        world.pass_time(seconds=PLAN.lifetime)
    with pytest.raises(Killed):
        world.keeper("doomed", die_at=step).pool.tend()
    world.kill("doomed")
    report = world.engine.reconcile(ADMIN)
    assert report.problems == []
    assert {m.member_id for m in world.members() if m.status is MemberState.READY} == world.resources()
    assert set(world.statuses()) <= {"ready"}
    world.keeper("next").pool.tend()
    assert world.statuses() == {"ready": 2}


@pytest.mark.parametrize("step", ["create.intent", "create.effect"])
def test_whoever_dies_while_taking_leaves_nothing_after_one_reconcile(world: PoolWorld, step: str) -> None:
    world.keeper().pool.tend()
    with pytest.raises(Killed):
        world.keeper("doomed", plan=None, die_at=step).create(ANN, "box")
    world.kill("doomed")
    assert world.engine.reconcile(ADMIN).problems == []
    view = world.engine.status(ANN, "box")
    owned = [r.sandbox_id for r in world.cloud.resources() if r.sandbox_id]
    assert owned == ([view.sandbox_id] if view.status == "active" else [])
    assert view.status == ("stopped" if step == "create.intent" else "active")
    assert world.statuses() == {"ready": 1}
    assert world.resources() == {world.members()[0].member_id}


def test_one_being_made_by_a_living_process_is_left_alone(world: PoolWorld) -> None:
    with pytest.raises(Killed):
        world.keeper("slow", die_at="pool.effect").pool.tend()
    assert world.engine.reconcile(ADMIN).to_dict() == Report().to_dict()
    assert world.statuses() == {"requested": 1}
    world.pass_time(seconds=200)
    world.engine.reconcile(ADMIN)
    assert world.members() == []
    assert world.resources() == set()


def test_one_that_was_given_up_while_it_was_made_is_removed_by_its_maker(world: PoolWorld) -> None:
    keeper = world.keeper(plan=PoolPlan("fake", {"default": 1}, total=1))
    prepare = keeper.providers.get("fake").prepare  # type: ignore[attr-defined]

    def slowly(spec: object) -> Ref:
        world.pass_time(seconds=200)
        world.engine.reconcile(ADMIN)
        return prepare(spec)  # type: ignore[no-any-return]

    keeper.providers.get("fake").prepare = slowly  # type: ignore[attr-defined]
    keeper.pool.tend()
    assert world.members() == []
    assert world.resources() == set()


def test_one_that_vanished_is_lost(world: PoolWorld) -> None:
    world.keeper().pool.tend()
    gone, kept = (member.member_id for member in world.members())
    world.cloud.remove(next(r for r in world.cloud.resources() if r.member_id == gone))
    report = world.engine.reconcile(ADMIN)
    assert report.pool == [f"{gone} was removed: lost"]
    assert world.told(gone) == ["requested", "ready", "retired", "removed"]
    assert [member.member_id for member in world.members()] == [kept]


def test_one_that_somebody_paused_is_of_no_use(world: PoolWorld) -> None:
    from dataclasses import replace

    world.keeper(plan=PoolPlan("fake", {"default": 1}, total=1)).pool.tend()
    (resource,) = world.cloud.resources()
    world.cloud.put(replace(resource, condition="paused"))
    world.engine.reconcile(ADMIN)
    assert world.members() == []
    assert world.resources() == set()


def test_what_no_member_explains_goes_after_a_grace(
    world: PoolWorld, another: EventStore | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restored backup of the log."""
    other = PoolWorld(tmp_path / "other", store=another)
    other.cloud = world.cloud
    monkeypatch.setattr(other.store, "installation", world.store.installation, raising=False)
    other.keeper().pool.tend()
    world.engine.create(ANN, "box")
    report = world.engine.reconcile(ADMIN)
    assert len(report.orphans) == 2
    assert world.resources() == set()
    other.close()


def test_an_error_proves_nothing(world: PoolWorld) -> None:
    world.keeper().pool.tend()
    for call in ("pooled", "inspect"):
        world.cloud.fail(call, "ProviderUnavailable", times=None)
    with world.nothing_recorded():
        report = world.engine.reconcile(ADMIN)
    assert report.problems == ["provider fake cannot list its pool: scripted fault: pooled before"]


def test_what_cannot_be_removed_now_is_removed_later(world: PoolWorld) -> None:
    world.keeper().pool.tend()
    world.cloud.fail("withdraw", "ProviderUnavailable", times=2)
    assert len(world.engine.pool.drain(ADMIN).problems) == 2
    assert world.statuses() == {"retired": 2}
    assert world.engine.reconcile(ADMIN).problems == []
    assert (world.members(), world.resources()) == ([], set())


def test_two_installations_do_not_touch_each_other(
    world: PoolWorld, another: EventStore | None, tmp_path: Path
) -> None:
    other = PoolWorld(tmp_path / "other", store=another)
    other.cloud = world.cloud
    other.keeper().pool.tend()
    theirs = world.resources()
    world.keeper().pool.tend()
    for _ in range(3):
        world.engine.create(ANN, f"box-{_}")
    world.engine.pool.drain(ADMIN)
    world.engine.reconcile(ADMIN)
    assert world.resources() == theirs
    assert other.keeper("later").reconcile(ADMIN).to_dict() == Report().to_dict()
    other.close()


def test_drained_by_an_operator_only(world: PoolWorld) -> None:
    world.keeper().pool.tend()
    with world.nothing_recorded(), pytest.raises(NotAllowed):
        world.engine.pool.drain(ANN)
    with pytest.raises(NotAllowed):
        world.engine.pool.status(ANN)
    assert len(world.engine.pool.drain(ADMIN).pool) == 2
    assert (world.members(), world.resources()) == ([], set())
    assert world.store.read(0)[-1].actor == "user:root"


# --- the worker and the facade -----------------------------------------------------------------------------------
def test_a_worker_keeps_it_and_one_without_a_plan_does_not_take_the_turn(world: PoolWorld) -> None:
    plain = Worker(world.engine)
    assert "pool" not in {chore.name for chore in plain._chores}
    keeper = world.keeper()
    assert Worker(keeper, Schedule(sweep=1)).run_once().problems == []
    assert world.statuses() == {"ready": 2}
    turns = [chore for chore in Worker(keeper)._chores if chore.name == "pool"]
    assert [chore.shared for chore in turns] == [True]


def test_the_facade_fills_it_in_the_background(world: PoolWorld) -> None:
    import threading

    keeper = world.keeper()
    background = Background(keeper, 300)
    background.keep_pool()
    patience = threading.Event()

    def until_full() -> None:
        for _ in range(1000):
            if world.statuses() == {"ready": 2}:
                return
            patience.wait(0.01)
        pytest.fail(f"the pool has {world.statuses()}")

    until_full()
    keeper.create(ANN, "box")
    background.keep_pool()
    until_full()
    background.stop()
    assert len(world.cloud.calls("prepare")) == 3


# --- the log -----------------------------------------------------------------------------------------------------
def test_the_log_tells_its_owner_of_the_taking_and_nobody_else(world: PoolWorld) -> None:
    world.keeper().pool.tend()
    view = world.engine.create(ANN, "box")
    log = EventLog(world.store, world.engine.queries)
    (taken,) = [e for e in log.page(ANN).events if e.topic.startswith("pool.")]
    assert taken.event == pe.PoolMemberTaken(sandbox_id=view.sandbox_id)
    assert log.page(BOB).events == ()
    seen = Counter(e.topic for e in log.page(ADMIN, limit=None).events if e.topic.startswith("pool."))
    assert seen == {
        "pool.slot_claimed": 2, "pool.member_requested": 2, "pool.member_ready": 2, "pool.member_taken": 1,
    }  # fmt: skip


def test_the_past_the_reasons_and_the_usage_know_sandboxes_only(world: PoolWorld) -> None:
    world.keeper().pool.tend()
    before = world.store.head()
    view = world.engine.create(ANN, "box")
    history = world.engine.history
    assert [each.sandbox_id for each in history.fleet(ADMIN, NOW, all_users=True)] == [view.sandbox_id]
    assert history.fleet(ADMIN, Moment(position=before), all_users=True) == []
    assert explain(history.replay(ANN, "box")).summary.startswith("Sandbox 'box'")
    used = usage(world.store.read(0), by="provider", now=world.store.now())
    assert used.total.sandboxes == {view.sandbox_id}


def test_every_event_of_it_is_told_and_sealed(world: PoolWorld, open_reading: Callable[[], Reading]) -> None:
    world.keeper().pool.tend()
    world.engine.create(ANN, "box")
    world.engine.pool.drain(ADMIN)
    told = [sentence(e) for e in world.store.read(0) if e.topic.startswith("pool.")]
    assert any("an operator emptied the pool" in line for line in told)
    Sealer(world.store).catch_up()
    with closing(open_reading()) as reading:
        assert verify_audit(LogEvidence(reading)).intact
