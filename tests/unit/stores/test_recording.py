"""Envelopes in the library's terms and back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from eventsourcing.persistence import Notification, StoredEvent

from nexus.adapters.stores.recording import PLACED, EnvelopeMapper, PlacedRecord, find_own, placed
from nexus.domain.errors import UnreadableEvent
from nexus.domain.events import DriftObserved, Envelope, Fact, Unread
from nexus.testing.store_contract.base import envelope

AT = datetime(2030, 1, 1, tzinfo=UTC)
MAPPER = EnvelopeMapper()


def stored(one: Envelope, position: int = 7) -> PlacedRecord:
    """As a database would return it."""
    record = MAPPER.to_stored_event(one)
    facts = {**vars(record), "id": position, "recorded_at": "2030-01-01T00:00:00.000000+00:00"}
    return placed([facts[name] for name in PLACED])


def test_there_and_back() -> None:
    one = envelope("sandbox-1", 3)
    assert MAPPER.to_domain_event(stored(one)) == replace(one, position=7, recorded_at=AT)


def test_records_are_the_librarys_own_kinds() -> None:
    record = MAPPER.to_stored_event(envelope("sandbox-1", 3))
    assert isinstance(record, StoredEvent)
    assert (record.originator_id, record.originator_version, record.topic) == (
        "sandbox-1",
        3,
        "sandbox.drift_observed",
    )
    notification = stored(envelope("sandbox-1", 3))
    assert isinstance(notification, Notification)
    assert (notification.id, notification.originator_version, notification.actor) == (7, 3, "user:ada")
    assert notification == stored(
        replace(
            envelope("sandbox-1", 3),
            event_id=notification.event_id,
            occurred_at=datetime.fromisoformat(notification.occurred_at),
        )
    )
    assert "sandbox-1" in repr(notification)


def test_a_record_reads_the_same_before_and_after_somebody_looked() -> None:
    record = stored(envelope("sandbox-1", 1))
    before = MAPPER.to_domain_event(record)
    assert record.tenant_id == "acme"
    assert MAPPER.to_domain_event(record) == before
    with pytest.raises(AttributeError):
        record.nothing_of_the_kind  # noqa: B018 - asking is the test


def test_a_page_marks_what_cannot_be_read() -> None:
    good = stored(envelope("sandbox-1", 1))
    bad = placed(
        ["sandbox.unheard_of" if name == "topic" else value for name, value in zip(PLACED, good.row(), strict=True)]
    )
    with pytest.raises(UnreadableEvent):
        MAPPER.to_domain_event(bad)
    first, second = MAPPER.to_page([good, bad])
    assert isinstance(first.event, DriftObserved)
    assert isinstance(second.event, Unread)
    assert second.topic == "sandbox.unheard_of"
    with pytest.raises(ValueError, match="cannot be read"):
        MAPPER.to_stored_event(second)


def test_facts_come_one_by_one() -> None:
    record = MAPPER.to_stored_event(envelope("sandbox-1", 1, at=AT))
    row = (record.topic, record.schema_version, record.state, record.occurred_at, 1)
    facts = MAPPER.to_facts([row, ("sandbox.unheard_of", *row[1:])])
    assert next(facts) == Fact(DriftObserved(kind="noted", detail="sandbox-1 1"), AT, 1)
    with pytest.raises(UnreadableEvent):
        next(facts)


def test_an_append_finds_its_own_events_or_none() -> None:
    first, second = envelope("sandbox-1", 1), envelope("sandbox-2", 1)
    records = [MAPPER.to_stored_event(one) for one in (first, second)]
    found = {one.event_id: stored(one) for one in (first, second)}
    assert find_own(records, found) == [found[first.event_id], found[second.event_id]]
    assert find_own(records, {first.event_id: found[first.event_id]}) is None
    assert find_own(records, {}) is None
    assert find_own([], {}) == []
    for other in (
        replace(second, originator_id="sandbox-3"),
        replace(second, originator_version=2),
        replace(second, event=DriftObserved(kind="other", detail="")),
    ):
        assert find_own(records, {**found, second.event_id: stored(other)}) is None
