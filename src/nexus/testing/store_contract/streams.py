"""Contract: appending to streams, alone and against others."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nexus.domain.errors import StoreUnavailable, StreamConflict
from nexus.domain.events import DriftObserved, ExecutionStarted, SandboxLost
from nexus.domain.ports import EventStore
from nexus.testing.store_contract.base import (
    OpenStore,
    RunSql,
    StoreContractBase,
    envelope,
    everything,
    new_stream,
    positions_of,
    stretch,
)


class StreamContract(StoreContractBase):
    # --- what goes in comes out ----------------------------------------------------------------------------------
    def test_append_returns_the_events_placed(self, store: EventStore) -> None:
        stream = new_stream()
        given = stretch(stream, 1, 3)
        placed = store.append(given)
        assert [replace(one, position=None, recorded_at=None) for one in placed] == given
        positions = positions_of(placed)
        assert positions == sorted(set(positions))
        assert all(one.recorded_at is not None and one.recorded_at.tzinfo is not None for one in placed)
        assert store.load(stream) == placed

    def test_every_fact_of_an_envelope_survives(self, store: EventStore, other: EventStore) -> None:
        stream = new_stream()
        at = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
        event = ExecutionStarted(
            execution_id="ex_é\u2603\U0001f600'\"\\",
            language="python",
            code_sha256="0" * 64,
            code_bytes=2**53,
            timeout=5,
            lease_until=at + timedelta(microseconds=1),
            holder="line\nbreak",
            expires_at=at,
        )
        full = replace(envelope(stream, 1, event, at=at), causation_id="cause-1")
        bare = replace(envelope(stream, 2, SandboxLost(detail="")), agent_id=None)
        store.append([full, bare])
        loaded = other.load(stream)
        assert [replace(one, position=None, recorded_at=None) for one in loaded] == [full, bare]

    def test_a_time_of_another_zone_is_the_same_moment(self, store: EventStore) -> None:
        stream = new_stream()
        at = datetime.fromisoformat("2031-05-06T23:30:00.000001+05:30")
        store.append([envelope(stream, 1, at=at)])
        (loaded,) = store.load(stream)
        assert loaded.occurred_at == at
        assert loaded.occurred_at.utcoffset() == timedelta(0)

    def test_the_stores_clock_is_aware_and_utc(self, store: EventStore) -> None:
        assert store.now().utcoffset() == timedelta(0)
        assert abs(store.now() - datetime.now(UTC)) < timedelta(minutes=5)

    def test_the_installation_is_one_id_for_all_and_for_good(
        self, store: EventStore, other: EventStore, reopen: OpenStore
    ) -> None:
        assert store.installation
        assert store.installation == other.installation
        store.close()
        again = reopen()
        assert again.installation == other.installation
        again.close()

    # --- conflicts -----------------------------------------------------------------------------------------------
    def test_a_taken_version_is_a_conflict_and_stores_nothing(self, store: EventStore, other: EventStore) -> None:
        stream = new_stream()
        store.append(stretch(stream, 1, 2))
        before = everything(store)
        with pytest.raises(StreamConflict) as caught:
            other.append([envelope(stream, 2), envelope(stream, 3)])
        assert stream in caught.value.details["streams"]
        assert everything(store) == before

    def test_several_streams_are_all_stored_or_none(self, store: EventStore) -> None:
        free, taken, also_free = new_stream(), new_stream(), new_stream()
        store.append([envelope(taken, 1)])
        with pytest.raises(StreamConflict):
            store.append([envelope(free, 1), envelope(taken, 1), envelope(also_free, 1)])
        assert store.load(free) == store.load(also_free) == []
        placed = store.append([envelope(free, 1), envelope(taken, 2), envelope(also_free, 1)])
        assert positions_of(placed) == sorted(positions_of(placed))
        assert [len(store.load(stream)) for stream in (free, taken, also_free)] == [1, 2, 1]

    def test_one_of_many_racers_wins_each_version(self, reopen: OpenStore, store: EventStore) -> None:
        stream, racers, versions = new_stream(), 8, 12
        line = threading.Barrier(racers, timeout=self.patience)

        def race() -> list[int]:
            won = []
            mine = reopen()
            try:
                for version in range(1, versions + 1):
                    line.wait()
                    try:
                        mine.append([envelope(stream, version)])
                        won.append(version)
                    except StreamConflict:
                        pass
            finally:
                mine.close()
            return won

        with ThreadPoolExecutor(racers) as pool:
            runs = [pool.submit(race) for _ in range(racers)]
            won = sorted(version for run in runs for version in run.result(self.patience))
        assert won == list(range(1, versions + 1))
        assert [one.originator_version for one in store.load(stream)] == won

    # --- lost answers --------------------------------------------------------------------------------------------
    def test_an_append_repeated_is_one_append(self, store: EventStore, other: EventStore) -> None:
        first, second = new_stream(), new_stream()
        given = [envelope(first, 1), envelope(second, 1), envelope(first, 2)]
        placed = store.append(given)
        assert other.append(given) == placed
        assert store.append(placed) == placed
        assert everything(store) == placed

    def test_an_append_repeated_later_is_still_known(self, store: EventStore) -> None:
        stream = new_stream()
        given = stretch(stream, 1, 2)
        placed = store.append(given)
        store.append(stretch(stream, 3, 5))
        assert store.append(given) == placed

    def test_part_of_an_append_is_not_that_append(self, store: EventStore) -> None:
        stream = new_stream()
        first = envelope(stream, 1)
        store.append([first])
        with pytest.raises(StreamConflict):
            store.append([first, envelope(stream, 2)])
        assert len(store.load(stream)) == 1

    def test_an_event_id_belongs_to_one_event_for_good(self, store: EventStore) -> None:
        stream, elsewhere = new_stream(), new_stream()
        first = envelope(stream, 1)
        store.append([first])
        for thief in (
            envelope(elsewhere, 1, event_id=first.event_id),
            envelope(stream, 2, event_id=first.event_id),
            replace(first, event=DriftObserved(kind="other", detail="content")),
        ):
            with pytest.raises(StreamConflict):
                store.append([thief])
        assert [one.event for one in everything(store)] == [first.event]

    # --- for good ------------------------------------------------------------------------------------------------
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE events SET actor = 'user:mallory'",
            "UPDATE events SET state = state WHERE originator_version = 1",
            "DELETE FROM events",
            "DELETE FROM events WHERE originator_version = 2",
        ],
    )
    def test_events_cannot_be_changed_or_removed(self, store: EventStore, run_sql: RunSql, statement: str) -> None:
        placed = store.append(stretch(new_stream(), 1, 3))
        with pytest.raises(Exception, match=r"(?i)append-only|permission"):
            run_sql(statement)
        assert everything(store) == placed

    def test_a_closed_store_says_so(self, store: EventStore) -> None:
        store.close()
        with pytest.raises(StoreUnavailable):
            store.append([envelope(new_stream(), 1)])
        with pytest.raises(StoreUnavailable):
            store.head()
        store.close()
