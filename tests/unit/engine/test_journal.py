"""The audit log as Python asks it: every filter against every entry, pages, following, and the exports."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from nexus.domain.errors import IllegalTransition, InvalidInput, SandboxNotFound
from nexus.domain.events import CommandRefused, Envelope
from nexus.domain.values import Principal, system_principal
from nexus.engine.audit.export import COLUMNS, FORMATS
from nexus.engine.audit.journal import Wanted, record
from nexus.engine.eventlog import sandbox_of
from tests.support.world import ADMIN, ANN, BOB, World

SYSTEM = system_principal()
BOT = Principal(user_id="ann", agent_id="=bot")
OLGA = Principal(user_id="olga", tenant_id="other")
FIELDS: dict[str, Callable[[Envelope], Any]] = {
    "actor": lambda e: e.actor,
    "tenant": lambda e: e.tenant_id,
    "agent": lambda e: e.agent_id,
    "command": lambda e: e.command,
    "origin": lambda e: e.origin,
    "correlation": lambda e: e.correlation_id,
    "types": lambda e: (e.topic,),
}


@pytest.fixture
def whole(world: World) -> list[Envelope]:
    """A log with something different in every column."""
    engine = world.engine
    box = engine.create(ANN, "box").sandbox_id
    engine.run(BOT, "box", code="1")
    engine.create(OLGA, "box")
    engine.create(BOB, "box", ttl_minutes=1)
    world.pass_time(minutes=2)
    world.worker("w", origin=lambda: "worker@far:7").sweep()
    engine.pause(ANN, "box")
    with pytest.raises(IllegalTransition):
        engine.run(ANN, "box", code="1")
    with pytest.raises(SandboxNotFound):
        engine.stop(BOB, box)
    engine.stop(ANN, "box")
    log: list[Envelope] = world.store.read(0)
    assert len(log) > 15
    return log


def test_a_filter_finds_what_has_its_value_and_nothing_else(world: World, whole: list[Envelope]) -> None:
    for field, of in FIELDS.items():
        values = {of(envelope) for envelope in whole} - {None}
        assert len(values) > 1 or field == "agent"
        for value in values:
            found = list(world.engine.journal.entries(SYSTEM, replace(Wanted(), **{field: value})))
            assert found == [envelope for envelope in whole if of(envelope) == value], (field, value)
        nothing: dict[str, Any] = {field: "nothing"}
        if field != "types":
            assert list(world.engine.journal.entries(SYSTEM, replace(Wanted(), **nothing))) == [], field
    assert list(world.engine.journal.entries(SYSTEM, Wanted())) == whole


def test_filters_are_taken_together(world: World, whole: list[Envelope]) -> None:
    for one in whole:
        wanted = Wanted(
            actor=one.actor, tenant=one.tenant_id, agent=one.agent_id, command=one.command, origin=one.origin,
            correlation=one.correlation_id, types=(one.topic,), since=one.recorded_at,
        )  # fmt: skip
        assert one in list(world.engine.journal.entries(SYSTEM, wanted))
    assert list(world.engine.journal.entries(SYSTEM, Wanted(actor="user:bob", command="pause"))) == []


def test_a_period_is_exact_at_the_microsecond_and_adjoining_ones_share_nothing(
    world: World, whole: list[Envelope]
) -> None:
    ask = world.engine.journal.entries
    for envelope in whole:
        moment = envelope.recorded_at
        assert moment is not None
        before, after = list(ask(SYSTEM, Wanted(until=moment))), list(ask(SYSTEM, Wanted(since=moment)))
        assert before + after == whole
        assert envelope in after
        later = list(ask(SYSTEM, Wanted(since=moment + timedelta(microseconds=1))))
        assert envelope not in later
        assert all(one.recorded_at is not None and one.recorded_at > moment for one in later)


def test_a_sandbox_by_itself_and_what_was_refused_on_it(world: World, whole: list[Envelope]) -> None:
    box = next(sandbox_of(one) for one in whole if sandbox_of(one))
    seen = list(world.engine.journal.entries(ADMIN, Wanted(), sandbox=box))
    beside = ("name.claimed", "key.claimed")
    assert seen == [one for one in whole if sandbox_of(one) == box and one.topic not in beside]
    refused = Wanted(types=(CommandRefused.TOPIC,))
    assert [one.event.error for one in world.engine.journal.entries(ADMIN, refused, sandbox=box)] == [  # type: ignore[attr-defined]
        "illegal_transition",
        "sandbox_not_found",
    ]
    assert [one.command for one in world.engine.journal.entries(ANN, refused, sandbox="box")] == ["run"]
    with pytest.raises(SandboxNotFound):
        world.engine.journal.entries(BOB, Wanted(), sandbox=str(box))
    with pytest.raises(InvalidInput):
        world.engine.journal.entries(ANN, Wanted(types=("nosuch",)))


def test_everyone_sees_theirs_and_tenants_never_mix(world: World, whole: list[Envelope]) -> None:
    def seen(principal: Principal) -> set[str]:
        return {one.event_id for one in world.engine.journal.entries(principal, Wanted())}

    everything = {one.event_id for one in whole}
    assert seen(SYSTEM) == everything
    assert seen(ADMIN) == {one.event_id for one in whole if one.tenant_id == "default"} == seen(ANN) | seen(BOB)
    assert seen(OLGA) == {one.event_id for one in whole if one.tenant_id == "other"} == everything - seen(ADMIN)
    assert not seen(ANN) & seen(BOB)


def test_pages_and_following_hold_everything_once(world: World, whole: list[Envelope]) -> None:
    gathered: list[Envelope] = []
    after: int | None = 0
    while after is not None:
        page = world.engine.journal.page(SYSTEM, Wanted(), limit=4, after=after)
        gathered += page.entries
        after = page.after
    assert gathered == whole
    head = world.engine.log.head()
    assert not world.engine.log.wait(head, 0.01)
    with pytest.raises(SandboxNotFound):
        world.engine.stop(ANN, "nosuch")
    assert world.engine.log.wait(head, 10)
    (new,) = world.engine.journal.entries(SYSTEM, Wanted(), after=head)
    assert new.topic == CommandRefused.TOPIC


def test_exports_hold_every_entry_and_every_column(world: World, whole: list[Envelope]) -> None:
    records = [record(envelope) for envelope in whole]

    def lines(form: str) -> str:
        return "".join(FORMATS[form](world.engine.journal.entries(SYSTEM, Wanted()), world.store.installation))

    rows = list(csv.DictReader(io.StringIO(lines("csv"), newline=""), strict=True))
    assert tuple(rows[0]) == COLUMNS
    for row, told in zip(rows, records, strict=True):
        for name in set(COLUMNS) - {"data", "agent_id"}:
            assert row[name] == ("" if told[name] is None else str(told[name]))
        assert row["agent_id"] == ("" if told["agent_id"] is None else "'=bot")
        assert json.loads(row["data"]) == told["data"]
    assert list(map(json.loads, lines("jsonl").splitlines())) == records
    for event, told in zip(map(json.loads, lines("cloudevents").splitlines()), records, strict=True):
        assert (event["specversion"], event["id"], event["type"]) == ("1.0", told["event_id"], f"nexus.{told['type']}")
        assert (event["origin"], event["actor"], event["tenantid"]) == (
            told["origin"],
            told["actor"],
            told["tenant_id"],
        )
        assert (event["correlationid"], event.get("causationid")) == (told["correlation_id"], told["causation_id"])
        assert (event["data"], int(event["sequence"])) == (told["data"], told["position"])
