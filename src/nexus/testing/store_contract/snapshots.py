"""Contract: snapshots, written with the events that they sum up."""

from __future__ import annotations

import pytest

from nexus.domain.errors import StreamConflict
from nexus.domain.ports import EventStore, Snapshot
from nexus.testing.store_contract.base import StoreContractBase, envelope, new_stream, stretch


class SnapshotContract(StoreContractBase):
    def test_a_stream_has_none_at_first(self, store: EventStore) -> None:
        assert store.snapshot(new_stream()) is None

    def test_the_newest_is_found(self, store: EventStore, other: EventStore) -> None:
        stream, beside = new_stream(), new_stream()
        first, second = Snapshot(stream, 2, 1, b"two"), Snapshot(stream, 4, 3, b"\x00four\xff")
        store.append(stretch(stream, 1, 2), snapshots=[first, Snapshot(beside, 1, 1, b"beside")])
        assert other.snapshot(stream) == first
        store.append(stretch(stream, 3, 4), snapshots=[second])
        assert other.snapshot(stream) == second
        assert other.snapshot(beside) == Snapshot(beside, 1, 1, b"beside")

    def test_an_older_one_that_comes_late_is_left_out(self, store: EventStore) -> None:
        stream = new_stream()
        newer = Snapshot(stream, 4, 1, b"four")
        store.append(stretch(stream, 1, 4), snapshots=[newer])
        store.append(stretch(stream, 5, 5), snapshots=[Snapshot(stream, 2, 1, b"two")])
        assert store.snapshot(stream) == newer

    def test_it_goes_with_its_events_or_not_at_all(self, store: EventStore) -> None:
        stream = new_stream()
        store.append([envelope(stream, 1)])
        with pytest.raises(StreamConflict):
            store.append([envelope(stream, 1)], snapshots=[Snapshot(stream, 1, 1, b"one")])
        assert store.snapshot(stream) is None
