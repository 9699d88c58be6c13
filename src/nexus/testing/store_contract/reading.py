"""Contract: reading streams and the log, events from the future included."""

from __future__ import annotations

from typing import ClassVar

import pytest

from nexus.domain.errors import UnreadableEvent
from nexus.domain.events import DriftObserved, Event, Fact, SandboxLost, Unread
from nexus.domain.ports import EventStore
from nexus.testing.store_contract.base import (
    OpenStore,
    StoreContractBase,
    envelope,
    everything,
    new_stream,
    positions_of,
    stretch,
)


class FromTheFuture(Event):
    """An event that only a later version of the program knows."""

    TOPIC: ClassVar = "sandbox.teleported"
    where: str


class ChangedLater(SandboxLost):
    """A known event as a later version writes it."""

    VERSION: ClassVar = 99
    galaxy: str = "far away"


class Misshapen(Event):
    """An event that claims to be a known one and is not."""

    TOPIC: ClassVar = DriftObserved.TOPIC
    kind: int


class ReadingContract(StoreContractBase):
    # --- streams -------------------------------------------------------------------------------------------------
    def test_load_takes_a_range_of_versions(self, store: EventStore) -> None:
        stream = new_stream()
        store.append(stretch(stream, 1, 6))
        store.append(stretch(new_stream(), 1, 6))

        def versions(after: int = 0, upto: int | None = None) -> list[int]:
            return [one.originator_version for one in store.load(stream, after=after, upto=upto)]

        assert versions() == [1, 2, 3, 4, 5, 6]
        assert versions(after=4) == [5, 6]
        assert versions(upto=2) == [1, 2]
        assert versions(after=2, upto=4) == [3, 4]
        assert versions(after=6) == versions(upto=0) == []

    def test_history_is_load_without_the_envelopes(self, store: EventStore) -> None:
        stream = new_stream()
        store.append(stretch(stream, 1, 6))
        for after, upto in ((0, None), (4, None), (0, 2), (2, 4), (6, None), (0, 0)):
            loaded = store.load(stream, after=after, upto=upto)
            facts = [Fact(one.event, one.occurred_at, one.originator_version) for one in loaded]
            assert list(store.history(stream, after=after, upto=upto)) == facts

    def test_an_unknown_stream_is_empty(self, store: EventStore) -> None:
        assert list(store.history(new_stream())) == []
        assert store.load(new_stream()) == []
        assert store.last(new_stream()) is None

    def test_last_is_the_newest_event(self, store: EventStore) -> None:
        stream = new_stream()
        placed = store.append(stretch(stream, 1, 3))
        assert store.last(stream) == placed[-1]

    # --- the log -------------------------------------------------------------------------------------------------
    def test_an_empty_log(self, store: EventStore) -> None:
        assert store.head() == 0
        assert store.read(0) == []

    def test_pages_of_the_log(self, store: EventStore) -> None:
        placed = [one for number in range(7) for one in store.append(stretch(new_stream(), 1, 1 + number % 2))]
        assert everything(store) == placed
        positions = positions_of(placed)
        assert positions == sorted(set(positions))
        assert store.head() == positions[-1]
        assert store.read(0, 3) == placed[:3]
        assert store.read(positions[2], 3) == placed[3:6]
        assert store.read(positions[1], upto=positions[4]) == placed[2:5]
        assert store.read(positions[1], 2, upto=positions[4]) == placed[2:4]
        assert store.read(positions[-1]) == store.read(positions[-1] + 1000) == []

    def test_pages_of_some_topics(self, store: EventStore) -> None:
        events = [SandboxLost(detail=""), FromTheFuture(where="Mars"), SandboxLost(detail="again")]
        store.append([envelope(new_stream(), 1, event) for event in events])
        store.append(stretch(new_stream(), 1, 3))
        whole = everything(store)
        first, strange, second = whole[:3]
        lost = [SandboxLost.TOPIC]
        assert store.read(0, topics=lost) == [first, second]
        assert store.read(0, 1, topics=lost) == [first]
        assert store.read(positions_of([first])[0], topics=lost) == [second]
        assert store.read(0, upto=positions_of([strange])[0], topics=lost) == [first]
        assert store.read(0, topics=[FromTheFuture.TOPIC]) == [strange]
        assert store.read(0, topics=[*lost, FromTheFuture.TOPIC]) == whole[:3]
        assert store.read(0, topics=["sandbox.nosuch"]) == []

    def test_times_are_in_the_order_of_positions(self, store: EventStore, other: EventStore) -> None:
        for turn in range(10):
            (store, other)[turn % 2].append(stretch(new_stream(), 1, 2))
        recorded = [one.recorded_at for one in everything(store) if one.recorded_at is not None]
        assert len(recorded) == 20
        assert recorded == sorted(recorded)

    def test_nothing_is_recorded_before_it_was_decided(self, reopen: OpenStore) -> None:
        """Whoever begins asks for the time and appends at once: its clock must not be ahead of the recording one."""
        for _ in range(10):
            store = reopen()
            decided = store.now()
            (placed,) = store.append([envelope(new_stream(), 1)])
            store.close()
            assert placed.recorded_at is not None
            assert decided <= placed.recorded_at

    # --- what this version cannot read ---------------------------------------------------------------------------
    @pytest.mark.parametrize(
        "unreadable",
        [FromTheFuture(where="Mars"), ChangedLater(detail=""), Misshapen(kind=7)],
        ids=lambda one: one.TOPIC,
    )
    def test_an_unreadable_event_closes_its_stream_alone(self, store: EventStore, unreadable: Event) -> None:
        strange, plain = new_stream(), new_stream()
        placed = store.append([envelope(strange, 1), envelope(plain, 1)])
        store.append([envelope(strange, 2, unreadable), envelope(plain, 2)])
        with pytest.raises(UnreadableEvent) as caught:
            store.load(strange)
        assert caught.value.details["topic"] == unreadable.TOPIC
        with pytest.raises(UnreadableEvent):
            store.last(strange)
        with pytest.raises(UnreadableEvent):
            list(store.history(strange))
        assert len(list(store.history(strange, upto=1))) == 1
        assert store.load(strange, upto=1) == placed[:1]
        assert [one.originator_version for one in store.load(plain)] == [1, 2]
        last = store.last(plain)
        assert last is not None
        assert last.originator_version == 2

    def test_a_page_shows_what_it_cannot_read(self, store: EventStore) -> None:
        strange, plain = new_stream(), new_stream()
        store.append([envelope(plain, 1), envelope(strange, 1, FromTheFuture(where="Mars")), envelope(plain, 2)])
        before, marker, after = everything(store)
        assert [before.originator_version, after.originator_version] == [1, 2]
        assert isinstance(marker.event, Unread)
        assert (marker.originator_id, marker.topic, marker.schema_version) == (strange, FromTheFuture.TOPIC, 1)
        assert "sandbox.teleported" in marker.event.reason
        assert marker.actor == "user:ada"

    def test_a_marker_is_never_stored(self, store: EventStore) -> None:
        with pytest.raises(ValueError, match="cannot be read"):
            store.append([envelope(new_stream(), 1, Unread(stored_topic="x", stored_version=1, reason="y"))])
        assert store.head() == 0
