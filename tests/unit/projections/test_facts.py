"""What is folded is what the envelopes say."""

from __future__ import annotations

from datetime import timedelta

from nexus.domain.ports import EventStore
from nexus.domain.sandbox import stream_id
from nexus.projections.facts import COLUMNS, LogFact, facts
from nexus.testing.store_contract.base import everything
from nexus.testing.store_contract.reading import ChangedLater, FromTheFuture, Misshapen
from tests.unit.domain.story import run_started, started
from tests.unit.projections.fleet import Fleet


def test_facts_are_what_envelopes_say(store: EventStore, fleet: Fleet) -> None:
    sandbox_id = fleet.create()
    for number in range(3):
        fleet.clock += timedelta(microseconds=1 + number)
        fleet.tell(sandbox_id, started() if number == 0 else run_started(f"ex_{number}"))
    for version, strange in enumerate((FromTheFuture(where="Mars"), ChangedLater(detail=""), Misshapen(kind=1)), 5):
        fleet.tell_strangely(stream_id(sandbox_id), version, strange)
    found = list(facts(store.raw(0, columns=COLUMNS)))
    assert found == [
        LogFact(
            one.position or 0,
            one.originator_id,
            one.originator_version,
            one.topic,
            one.schema_version,
            one.event,
            one.occurred_at,
        )
        for one in everything(store)
    ]
    assert [fact.event.TOPIC for fact in found[-3:]] == ["unread"] * 3
    assert len({fact.occurred_at for fact in found[:4]}) == 4
