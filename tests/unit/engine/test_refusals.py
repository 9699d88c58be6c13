"""What was refused is in the audit log, and in nothing else; who may read how much of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nexus.domain.errors import (
    AmbiguousReference,
    IdempotencyMismatch,
    IllegalTransition,
    InvalidInput,
    NameTaken,
    NexusError,
    NotAllowed,
    ProviderAuth,
    ProviderUnsupported,
    SandboxBusy,
    SandboxNotFound,
    StoreUnavailable,
)
from nexus.domain.events import CommandRefused, Envelope
from nexus.domain.ports import EventStore
from nexus.domain.provider import Capabilities
from nexus.domain.sandbox import sandbox_id_of
from nexus.domain.values import Principal, system_principal
from nexus.engine.audit.canonical import leaf
from nexus.engine.audit.journal import Journal, Wanted, record
from nexus.engine.audit.sealer import Sealer
from nexus.engine.eventlog import EventLog, sandbox_of
from nexus.engine.history import NOW
from nexus.engine.lives import lives
from nexus.engine.service import Engine
from nexus.engine.why import explain
from nexus.projections.projector import Projector
from tests.support.world import ADMIN, ANN, BOB, World

OTHER = Principal(user_id="olga", tenant_id="other", is_admin=True)
SYSTEM = system_principal()
UNKNOWN = "sb_" + "0" * 32


def refused(world: World, error: type[NexusError], act: Callable[[], Any]) -> Envelope:
    """What a refused command recorded: one event, in a stream of its own."""
    head = world.store.head()
    with pytest.raises(error):
        act()
    envelope: Envelope
    (envelope,) = world.store.read(head)
    assert isinstance(envelope.event, CommandRefused)
    assert envelope.event.error == error.code
    assert (envelope.originator_version, sandbox_id_of(envelope.originator_id)) == (1, None)
    assert world.store.load(envelope.originator_id) == [envelope]
    return envelope


def log(world: World) -> EventLog:
    return EventLog(world.store, world.engine.queries)


def told(world: World, principal: Principal) -> list[CommandRefused]:
    page = log(world).page(principal, limit=None, types=[CommandRefused.TOPIC])
    return [envelope.event for envelope in page.events if isinstance(envelope.event, CommandRefused)]


# --- what is a refusal ---------------------------------------------------------------------------------------------
def test_an_illegal_transition_names_the_state(world: World) -> None:
    view = world.engine.create(ANN, "data")
    world.engine.pause(ANN, "data")
    agent = Principal(user_id="ann", agent_id="bot")
    envelope = refused(world, IllegalTransition, lambda: world.engine.run(agent, "data", code="secret-canary"))
    assert envelope.event == CommandRefused(
        command="run",
        user_id="ann",
        reference="data",
        error="illegal_transition",
        message="Cannot run a sandbox that is paused",
        sandbox_id=view.sandbox_id,
        owner_id=None,
        state="paused",
    )
    assert (envelope.actor, envelope.agent_id, envelope.command) == ("agent:bot", "bot", "run")
    assert (envelope.tenant_id, envelope.causation_id) == ("default", None)
    assert sandbox_of(envelope) == view.sandbox_id
    assert record(envelope)["sentence"] == (
        "was refused to run 'data': Cannot run a sandbox that is paused (illegal_transition)"
    )


def test_every_kind_of_decision(world: World) -> None:
    engine = world.engine
    first = engine.create(ANN, "data", idempotency_key="canary-key")
    assert refused(world, NameTaken, lambda: engine.create(ANN, "data")).event.sandbox_id == first.sandbox_id  # type: ignore[attr-defined]
    mismatch = refused(
        world, IdempotencyMismatch, lambda: engine.create(ANN, "new", idempotency_key="canary-key", ttl_minutes=5)
    )
    assert "canary" not in repr(mismatch.event)
    refused(world, SandboxNotFound, lambda: engine.stop(ANN, "nosuch"))
    refused(world, NotAllowed, lambda: engine.reconcile(ANN))
    engine.stop(ANN, "data")
    for command in (engine.pause, engine.resume):
        refused(world, IllegalTransition, lambda command=command: command(ANN, first.sandbox_id))  # type: ignore[misc]
    refused(world, IllegalTransition, lambda: engine.extend(ANN, first.sandbox_id, 5))
    refused(world, IllegalTransition, lambda: engine.read_file(ANN, first.sandbox_id, "/x"))
    refused(world, IllegalTransition, lambda: engine.write_file(ANN, first.sandbox_id, "/x", b""))
    commands = [event.command for event in told(world, ANN)]
    assert commands == [
        "create", "create", "stop", "reconcile", "pause", "resume", "extend", "read_file", "write_file",
    ]  # fmt: skip


COMMANDS: dict[str, Callable[[Engine, str], Any]] = {
    "run": lambda engine, box: engine.run(ANN, box, code="1"),
    "pause": lambda engine, box: engine.pause(ANN, box),
    "resume": lambda engine, box: engine.resume(ANN, box),
    "stop": lambda engine, box: engine.stop(ANN, box),
    "extend": lambda engine, box: engine.extend(ANN, box, 1),
    "read_file": lambda engine, box: list(engine.read_file(ANN, box, "/x")),
    "write_file": lambda engine, box: engine.write_file(ANN, box, "/x", b"1"),
}
REFUSED_WHEN = {
    "active": set[str](),
    "paused": {"run", "read_file", "write_file"},
    "stopped": {"run", "pause", "resume", "extend", "read_file", "write_file"},
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("state", REFUSED_WHEN)
def test_every_command_in_every_state(world: World, state: str, command: str) -> None:
    """Either it is carried out and nobody was refused, or it is refused, and that is all that is recorded."""
    box = world.engine.create(ANN, "data").sandbox_id
    world.engine.write_file(ANN, box, "/x", b"1")
    if state != "active":
        getattr(world.engine, {"paused": "pause", "stopped": "stop"}[state])(ANN, box)
    before = world.engine.status(ANN, box)
    assert before.status == state
    if command in REFUSED_WHEN[state]:
        envelope = refused(world, IllegalTransition, lambda: COMMANDS[command](world.engine, box))
        assert (envelope.event.command, envelope.event.state) == (command, state)  # type: ignore[attr-defined]
        assert world.engine.status(ANN, box) == before
    else:
        COMMANDS[command](world.engine, box)
        assert told(world, SYSTEM) == []


def test_an_ambiguous_beginning(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from uuid import UUID

    ids = iter(UUID(int=(0xABCD << 112) + number) for number in (1, 2))
    monkeypatch.setattr("nexus.engine.creation.uuid4", lambda: next(ids))
    for name in ("one", "two"):
        world.engine.create(ANN, name)
    refused(world, AmbiguousReference, lambda: world.engine.stop(ANN, "sb_abcd"))


def test_busy_is_a_refusal_unless_it_is_joined(world: World) -> None:
    view = world.engine.create(ANN, "data")
    seen: list[Envelope] = []

    def during(step: str) -> None:
        if step == "pause.intent":
            seen.append(refused(world, SandboxBusy, lambda: world.engine.run(ANN, "data", code="1")))

    world.worker("slow", steps=during).pause(ANN, "data")
    assert seen[0].event.sandbox_id == view.sandbox_id  # type: ignore[attr-defined]
    assert "pause is in flight" in seen[0].event.message  # type: ignore[attr-defined]


def test_what_a_provider_declares_that_it_cannot_do_is_a_decision(world: World) -> None:
    able = Capabilities(pause="none", languages=("bash",))
    world.capabilities = able
    engine = world.worker("w")
    view = engine.create(ANN, "data")
    for command in (lambda: engine.pause(ANN, view.sandbox_id), lambda: engine.run(ANN, view.sandbox_id, code="1")):
        assert sandbox_of(refused(world, ProviderUnsupported, command)) == view.sandbox_id


def test_what_was_never_a_command_is_not_recorded(world: World) -> None:
    world.engine.create(ANN, "data")
    head = world.store.head()
    for bad in (
        lambda: world.engine.create(ANN, "../x"),
        lambda: world.engine.create(ANN, "new", ttl_minutes=0),
        lambda: world.engine.run(ANN, "data", code="1", timeout=-1),
        lambda: world.engine.run(ANN, 5, code="1"),  # type: ignore[arg-type]
        lambda: world.engine.extend(ANN, "data", 0),
        lambda: world.engine.read_file(ANN, "data", ""),
    ):
        with pytest.raises(InvalidInput):
            bad()
    for question in (world.engine.status, world.engine.verify, world.engine.resolve):
        with pytest.raises(SandboxNotFound):
            question(ANN, UNKNOWN)
    with pytest.raises(NotAllowed):
        world.engine.list(ANN, all_users=True)
    assert world.store.head() == head


def test_what_failed_after_it_was_accepted_is_an_outcome_and_no_refusal(world: World) -> None:
    world.cloud.fail("ensure", "ProviderAuth")
    with pytest.raises(ProviderAuth):
        world.engine.create(ANN, "data")
    world.engine.create(ANN, "data")

    def relay(_stream: str, _data: bytes) -> None:
        world.engine.stop(ANN, "nosuch")  # the callback's own command is refused, not the run

    def chatty(run: Any) -> Any:
        from nexus.testing import Outcome

        run.emit("stdout", b"x")
        return Outcome(0)

    engine = world.worker("w", fake={"behaviour": chatty})
    with pytest.raises(SandboxNotFound):
        engine.run(ANN, "data", code="1", on_output=relay)
    assert [event.command for event in told(world, ANN)] == ["stop"]


def test_a_name_that_is_joined_is_not_refused(world: World) -> None:
    world.engine.create(ANN, "data")
    world.engine.get_or_create(ANN, "data")
    assert told(world, SYSTEM) == []


def test_a_reference_of_any_kind_is_one_short_line(world: World) -> None:
    for reference in ("a\nb\x1b[31m", "x" * 10_000, "\u202eevil", "\udcff", "é"):
        event = refused(world, SandboxNotFound, lambda reference=reference: world.engine.stop(ANN, reference)).event  # type: ignore[misc]
        assert isinstance(event, CommandRefused)
        assert len(event.reference or "") <= 128
        assert len(event.message) <= 500
        assert ((event.reference or "") + event.message).isprintable()


# --- who may know --------------------------------------------------------------------------------------------------
def test_anothers_sandbox_and_an_unknown_one_read_alike_to_their_caller_and_not_to_an_auditor(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = world.engine.create(ANN, "data")
    queries: list[str] = []
    views = world.engine.queries._views
    query = views.query

    def noted(sql: str, params: Any = None) -> Any:
        queries.append(sql)
        return query(sql, params)

    monkeypatch.setattr(views, "query", noted)
    asked = []
    for reference in (view.sandbox_id, UNKNOWN):
        queries.clear()
        refused(world, SandboxNotFound, lambda reference=reference: world.engine.stop(BOB, reference))  # type: ignore[misc]
        asked.append(list(queries))
    assert asked[0] == asked[1], "as much work for the one as for the other"

    mine = told(world, BOB)
    assert [event.reference for event in mine] == [view.sandbox_id, UNKNOWN]
    blank = {"reference": "", "message": ""}
    assert mine[0].model_copy(update=blank) == mine[1].model_copy(update=blank)
    assert (mine[0].sandbox_id, mine[0].owner_id) == (None, None)
    for auditor in (ADMIN, SYSTEM):
        truth = told(world, auditor)
        assert [(event.sandbox_id, event.owner_id) for event in truth] == [(view.sandbox_id, "ann"), (None, None)]
    sentence = record(log(world).page(ADMIN, limit=None, types=[CommandRefused.TOPIC]).events[0])["sentence"]
    assert sentence.startswith(f"was refused to stop '{view.sandbox_id}'")
    assert "(it is ann's)" in sentence


def test_the_redaction_holds_wherever_an_event_can_be_read(world: World) -> None:
    view = world.engine.create(ANN, "data")
    envelope = refused(world, SandboxNotFound, lambda: world.engine.stop(BOB, view.sandbox_id))
    events, journal = log(world), Journal(log(world))
    upto = envelope.position or 0
    seen = [
        events.page(BOB).events[-1],
        events.last(BOB, 1, upto=upto)[-1],
        list(events.each(BOB))[-1],
        events.find(BOB, upto),
        events.find(BOB, envelope.event_id),
        journal.page(BOB, Wanted(), limit=10).entries[-1],
        list(journal.entries(BOB, Wanted(command="stop")))[-1],
    ]
    for one in seen:
        assert one.event_id == envelope.event_id
        assert isinstance(one.event, CommandRefused)
        assert (one.event.sandbox_id, one.event.owner_id, sandbox_of(one)) == (None, None, None)
        assert "ann" not in repr(record(one))


def test_users_see_their_own_and_tenants_never_mix(world: World) -> None:
    view = world.engine.create(ANN, "data")
    for principal in (ANN, BOB, OTHER):
        with pytest.raises(SandboxNotFound):
            world.engine.stop(principal, UNKNOWN)
    envelope = refused(world, SandboxNotFound, lambda: world.engine.stop(OTHER, view.sandbox_id))
    assert envelope.tenant_id == "other"
    assert [event.user_id for event in told(world, ANN)] == ["ann"]
    assert [event.user_id for event in told(world, BOB)] == ["bob"]
    assert [event.user_id for event in told(world, ADMIN)] == ["ann", "bob"]
    theirs = told(world, OTHER)
    assert [(event.user_id, event.sandbox_id, event.owner_id) for event in theirs] == [("olga", None, None)] * 2
    assert len(told(world, SYSTEM)) == 4


# --- beside the sandboxes ------------------------------------------------------------------------------------------
def test_a_sandboxs_audit_log_holds_the_refused_commands_on_it_and_its_own_stream_does_not(world: World) -> None:
    view = world.engine.create(ANN, "data")
    world.engine.create(ANN, "else")
    world.engine.pause(ANN, "data")
    refusal = refused(world, IllegalTransition, lambda: world.engine.run(ANN, "data", code="1"))
    refused(world, NameTaken, lambda: world.engine.create(ANN, "else"))
    world.engine.stop(ANN, "data")
    own = log(world).of(ANN, "data").events
    assert CommandRefused.TOPIC not in [envelope.topic for envelope in own]
    whole = list(Journal(log(world)).entries(ANN, Wanted(), sandbox=view.sandbox_id))
    assert whole == sorted([*own, refusal], key=lambda envelope: envelope.position or 0)
    only = Journal(log(world)).page(ANN, Wanted(types=(CommandRefused.TOPIC,)), sandbox=view.sandbox_id, limit=5)
    assert only.entries == (refusal,)
    other = list(Journal(log(world)).entries(ANN, Wanted(types=("sandbox.paused",)), sandbox=view.sandbox_id))
    assert [envelope.topic for envelope in other] == ["sandbox.paused"]


def test_views_replay_usage_and_timeline_know_nothing_of_it(world: World) -> None:
    view = world.engine.create(ANN, "data")
    world.engine.pause(ANN, "data")

    def pictures() -> list[Any]:
        return [
            world.engine.status(ANN, "data"),
            [step.view for step in world.engine.history.replay(ANN, "data")],
            world.engine.history.fleet(ANN, NOW),
            lives(world.store.read(0)),
            explain(world.engine.history.replay(ANN, "data")),
        ]

    before = pictures()
    refused(world, IllegalTransition, lambda: world.engine.run(ANN, view.sandbox_id, code="1"))
    assert pictures() == before


def test_the_read_models_equal_a_replay(world: World) -> None:
    a_refusal(world)
    read_models_are_true(world.store)


def a_refusal(world: World) -> None:
    world.engine.create(ANN, "data")
    refused(world, NameTaken, lambda: world.engine.create(ANN, "data"))


def read_models_are_true(store: EventStore) -> None:
    projector = Projector(store)
    projector.catch_up()
    for name in ("sandboxes", "due", "executions"):
        assert projector.verify(name).is_equal
    assert not any(status.quarantined for status in projector.status())


def test_it_is_sealed_like_everything_else(world: World) -> None:
    refusal = refused(world, SandboxNotFound, lambda: world.engine.stop(ANN, UNKNOWN))
    assert Sealer(world.store).catch_up() == 1
    (seal,) = world.store.views.query("SELECT * FROM seals")
    (raw,) = world.store.raw(0)
    assert seal["position"] == refusal.position
    assert (seal["event_ids"], seal["leaves"]) == (f'["{refusal.event_id}"]', leaf(raw).hex())


def test_a_follower_is_woken_by_it(world: World) -> None:
    head = world.store.head()
    refused(world, SandboxNotFound, lambda: world.engine.stop(ANN, UNKNOWN))
    assert world.store.wait(head, 10)


# --- a store that will not take it ---------------------------------------------------------------------------------
@pytest.mark.parametrize("problem", [StoreUnavailable("away"), OSError("canary-in-a-message")])
def test_a_store_that_cannot_take_it_does_not_hide_the_refusal(
    world: World, problem: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = world.engine.create(ANN, "data")
    engine: Engine = world.worker("w")

    def fail(*_given: Any, **_more: Any) -> Any:
        raise problem

    monkeypatch.setattr(engine.streams.store, "append", fail, raising=False)
    with pytest.raises(SandboxNotFound):
        engine.stop(BOB, view.sandbox_id)
    assert told(world, SYSTEM) == []
    assert "the refusal of stop (sandbox_not_found) could not be recorded" in caplog.text
    assert "canary" not in caplog.text
