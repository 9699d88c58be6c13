"""Contract: tables built aside take the place of the live ones in one step."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from nexus.domain.ports import EventStore, RowWrite
from nexus.testing.store_contract.base import (
    PETS,
    StoreContractBase,
    envelope,
    new_stream,
    pet,
    pets,
    positions_of,
)

ASIDE = replace(PETS, name="pets__aside")


def aside(pet_id: str, name: str) -> RowWrite:
    return RowWrite(ASIDE.name, {"pet_id": pet_id}, {"name": name})


class SwapContract(StoreContractBase):
    @pytest.fixture
    def building(self, store: EventStore) -> Iterator[EventStore]:
        """Live pets of version 1 at position 5, and new ones aside at position 7."""
        store.views.create([PETS])
        store.views.advance("pets:1", None, 5, [pet("old", name="old")])
        self._build(store, 7)
        yield store
        store.views.drop([PETS.name, ASIDE.name], ["pets:1", "pets:2", "pets:2:aside"])

    def test_a_bare_table_is_filled_and_completed(self, building: EventStore, other: EventStore) -> None:
        building.views.begin([ASIDE], "pets:2:aside", indexed=False)
        building.views.advance("pets:2:aside", 0, 4, [aside("a", "one"), aside("b", "two")], durable=False)
        for _ in range(2):  # another process may have been first
            building.views.complete([ASIDE])
        building.views.advance("pets:2:aside", 4, 7, [aside("a", "three")], durable=False)
        assert self._swap(building, 7) == 9
        building.views.complete([ASIDE])  # too late: it has taken the place
        assert [(row["pet_id"], row["name"]) for row in pets(other)] == [("a", "three"), ("b", "two")]
        other.views.advance("pets:2", 9, 10, [pet("a", name="four")])
        assert [row["name"] for row in pets(building)] == ["four", "two"]

    def _build(self, store: EventStore, position: int) -> None:
        store.views.create([ASIDE])
        store.views.advance("pets:2:aside", None, position, [aside("new", "new")])

    def _swap(self, store: EventStore, expected: int, rows: Sequence[RowWrite] = (), position: int = 9) -> int | None:
        asked: list[int] = []

        def finish(since: int) -> tuple[int, Sequence[RowWrite]]:
            asked.append(since)
            return position, rows

        swapped = store.views.swap(
            {ASIDE.name: PETS.name},
            built="pets:2:aside",
            expected=expected,
            projection="pets:2",
            forget=["pets:1"],
            finish=finish,
        )
        assert asked == ([] if swapped is None else [expected])
        return swapped

    def _names(self, store: EventStore) -> list[object]:
        return [row["name"] for row in pets(store)]

    def test_the_tables_and_the_positions_change_places(self, building: EventStore, other: EventStore) -> None:
        assert self._swap(building, 7, [aside("last", "last")]) == 9
        assert self._names(other) == ["last", "new"]
        positions = [building.views.position(name) for name in ("pets:1", "pets:2", "pets:2:aside")]
        assert positions == [None, 9, None]
        with pytest.raises(Exception, match="pets__aside"):
            building.views.query("SELECT * FROM pets__aside")

    def test_it_can_be_done_again_and_again(self, building: EventStore) -> None:
        for _ in range(3):
            assert self._swap(building, 7) == 9
            assert self._names(building) == ["new"]
            assert building.views.advance("pets:2", 9, 10, [pet("later", name="later")])
            self._build(building, 7)

    @pytest.mark.parametrize("expected", [0, 6, 8])
    def test_tables_that_another_builder_touched_stay_aside(self, building: EventStore, expected: int) -> None:
        assert self._swap(building, expected) is None
        assert self._names(building) == ["old"]
        assert [building.views.position(name) for name in ("pets:1", "pets:2:aside")] == [5, 7]

    def test_a_failure_at_the_end_leaves_everything_as_it_was(self, building: EventStore) -> None:
        def finish(_since: int) -> tuple[int, Sequence[RowWrite]]:
            raise RuntimeError("the last page cannot be read")

        with pytest.raises(RuntimeError, match="last page"):
            building.views.swap(
                {ASIDE.name: PETS.name},
                built="pets:2:aside",
                expected=7,
                projection="pets:2",
                forget=["pets:1"],
                finish=finish,
            )
        assert self._names(building) == ["old"]
        assert [building.views.position(name) for name in ("pets:1", "pets:2", "pets:2:aside")] == [5, None, 7]

    def test_a_projector_of_the_old_tables_cannot_write_into_the_new(self, building: EventStore) -> None:
        self._swap(building, 7)
        assert not building.views.advance("pets:1", 5, 6, [pet("late", name="late")])
        assert self._names(building) == ["new"]

    def test_the_last_step_sees_every_append_and_no_append_comes_between(
        self, building: EventStore, other: EventStore
    ) -> None:
        """Each append also writes a row: whatever is in the log before the swap is in the new table after it."""
        stop = threading.Event()
        stored: list[str] = []

        def append_on() -> None:
            while not stop.is_set():
                stream = new_stream()
                other.append([envelope(stream, 1)], rows=[pet(stream, name="live")])
                stored.append(stream)

        def finish(since: int) -> tuple[int, Sequence[RowWrite]]:
            rows = [aside("new", "new")]
            position = 0
            while page := building.read(position):
                rows.extend(aside(one.originator_id, "replayed") for one in page)
                position = positions_of(page[-1:])[0]
            return position, rows

        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(append_on)
            try:
                for _ in range(8):
                    count = len(stored)
                    while len(stored) < count + 5 and not run.done():
                        assert not stop.wait(0.001)
                    swapped = building.views.swap(
                        {ASIDE.name: PETS.name},
                        built="pets:2:aside",
                        expected=7,
                        projection="pets:2",
                        forget=["pets:1"],
                        finish=finish,
                    )
                    assert swapped is not None
                    self._build(building, 7)
            finally:
                stop.set()
            run.result(self.patience)
        assert {row["pet_id"] for row in pets(building)} == {"new", *stored}

    def test_readers_never_see_a_table_torn_or_missing(self, building: EventStore, other: EventStore) -> None:
        stop = threading.Event()

        def read_on() -> int:
            reads = 0
            while not stop.is_set():
                assert self._names(other) in (["old"], ["new"], ["last", "new"])
                reads += 1
            return reads

        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(read_on)
            try:
                for _ in range(10):
                    self._swap(building, 7, [aside("last", "last")])
                    self._build(building, 7)
            finally:
                stop.set()
            assert run.result(self.patience) > 0
