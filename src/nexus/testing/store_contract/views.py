"""Contract: tables and rows of read models, alone and with the append."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from nexus.domain.errors import SchemaMismatch, StreamConflict
from nexus.domain.ports import EventStore, RowsWrite, RowWrite, Table
from nexus.testing.store_contract.base import (
    PETS,
    OpenStore,
    StoreContractBase,
    envelope,
    new_stream,
    pet,
    pets,
)


class ViewContract(StoreContractBase):
    @pytest.fixture
    def stable(self, store: EventStore) -> Iterator[EventStore]:
        """The store with a table for pets."""
        store.views.create([PETS])
        yield store
        store.views.drop([PETS.name], ["pets:1"])

    def _put(self, store: EventStore, *rows: RowWrite) -> None:
        store.append([envelope(new_stream(), 1)], rows=rows)

    # --- tables and rows -----------------------------------------------------------------------------------------
    def test_tables_are_made_once(self, stable: EventStore, other: EventStore) -> None:
        self._put(stable, pet("a", name="Ada"))
        other.views.create([PETS])
        stable.views.create([PETS, Table("pens", {"pen": "text", "size": "integer"}, key=("pen",))])
        assert len(pets(stable)) == 1
        assert stable.views.query("SELECT * FROM pens") == []
        stable.views.drop(["pens", "pens_that_never_were"], [])

    def test_many_make_the_same_tables_at_once(self, stable: EventStore, reopen: OpenStore) -> None:
        tables = [Table(f"crowd_{number}", {"id": "text", "n": "integer"}, ("id",), (("n",),)) for number in range(4)]
        line = threading.Barrier(6, timeout=self.patience)

        def make() -> None:
            mine = reopen()
            try:
                line.wait()
                mine.views.create(tables)
            finally:
                mine.close()

        with ThreadPoolExecutor(6) as pool:
            for run in [pool.submit(make) for _ in range(6)]:
                run.result(self.patience)
        self._put(stable, *(RowWrite(table.name, {"id": "a"}, {"n": 1}) for table in tables))
        stable.views.drop([table.name for table in tables], [])

    def test_values_of_every_kind(self, stable: EventStore) -> None:
        self._put(
            stable, pet("é\u2603", version=2**53, name=None, weight=0.1), pet("b", version=0, name="", weight=-1.5)
        )
        assert pets(stable) == [
            {"pet_id": "b", "version": 0, "name": "", "weight": -1.5},
            {"pet_id": "é\u2603", "version": 2**53, "name": None, "weight": 0.1},
        ]

    def test_queries_take_named_parameters(self, stable: EventStore) -> None:
        self._put(stable, pet("a", name="x' OR 1=1 --", weight=1.0), pet("b", name="100% :name", weight=2.0))
        query = stable.views.query
        assert [
            row["pet_id"] for row in query("SELECT pet_id FROM pets WHERE name = :name", {"name": "100% :name"})
        ] == ["b"]
        twice = "SELECT count(*) AS n FROM pets WHERE weight >= :low AND weight < :low + 1 AND name LIKE '%OR%'"
        assert query(twice, {"low": 1.0}) == [{"n": 1}]
        assert query("SELECT pet_id FROM pets WHERE pet_id IN (:a, :b) ORDER BY pet_id DESC", {"a": "a", "b": "b"}) == [
            {"pet_id": "b"},
            {"pet_id": "a"},
        ]
        assert query("SELECT ':no' AS text FROM pets WHERE name = :name", {"name": "nobody"}) == []

    def test_rows_of_keys_compare_as_pairs(self, stable: EventStore) -> None:
        self._put(
            stable,
            *(pet(one, name=one.upper(), weight=weight) for one, weight in zip("abc", (1.0, 1.0, 2.0), strict=True)),
        )
        found = stable.views.query(
            "SELECT pet_id FROM pets WHERE (weight, pet_id) < (:weight, :id) ORDER BY weight DESC, pet_id DESC",
            {"weight": 1.0, "id": "b"},
        )
        assert found == [{"pet_id": "a"}]

    def test_text_sorts_by_code_point(self, stable: EventStore) -> None:
        names = ["B", "Z", "a", "sb_0", "sb_a", "é"]
        self._put(stable, *(pet(name) for name in reversed(names)))
        assert [row["pet_id"] for row in stable.views.query("SELECT pet_id FROM pets ORDER BY pet_id")] == names

    def test_a_row_is_written_in_parts(self, stable: EventStore) -> None:
        self._put(stable, pet("a", name="Ada", version=1))
        self._put(stable, pet("a", weight=3.5))
        self._put(stable, pet("a", name=None), pet("b"))
        self._put(stable, pet("b"), pet("a"))
        assert pets(stable) == [
            {"pet_id": "a", "version": 1, "name": None, "weight": 3.5},
            {"pet_id": "b", "version": None, "name": None, "weight": None},
        ]

    def test_a_row_that_is_newer_is_left_alone(self, stable: EventStore) -> None:
        def at(version: int, name: str) -> RowWrite:
            return RowWrite(PETS.name, {"pet_id": "a"}, {"version": version, "name": name}, newer="version")

        for version, name in ((2, "two"), (5, "five"), (3, "three"), (5, "five again"), (4, "four")):
            self._put(stable, at(version, name))
        assert [(row["version"], row["name"]) for row in pets(stable)] == [(5, "five again")]

    def test_a_known_row_is_updated_and_never_made(self, stable: EventStore) -> None:
        def known(pet_id: str, version: int, name: str) -> RowWrite:
            return RowWrite(PETS.name, {"pet_id": pet_id}, {"version": version, "name": name}, "version", known=True)

        self._put(stable, pet("a", version=2, name="two", weight=1.0), pet("b", version=2, name="two"))
        self._put(stable, known("a", 3, "three"), known("b", 1, "one"), known("ghost", 1, "one"))
        assert [tuple(row.values()) for row in pets(stable)] == [("a", 3, "three", 1.0), ("b", 2, "two", None)]
        stable.append([envelope(new_stream(), 1)], rows=[known("a", 4, "four"), known("ghost", 1, "one")])
        stable.append([envelope(new_stream(), 1)], rows=[known("a", 3, "late"), known("b", 5, "five")])
        assert [tuple(row.values()) for row in pets(stable)] == [("a", 4, "four", 1.0), ("b", 5, "five", None)]

    def test_rows_are_removed_and_may_come_back(self, stable: EventStore) -> None:
        gone = RowWrite(PETS.name, {"pet_id": "a"}, None)
        self._put(stable, gone)
        self._put(stable, pet("a", name="Ada", weight=1.0), pet("b"))
        self._put(stable, gone)
        assert [row["pet_id"] for row in pets(stable)] == ["b"]
        self._put(stable, pet("a", name="again"), gone, pet("a", weight=2.0))
        assert pets(stable)[0] == {"pet_id": "a", "version": None, "name": None, "weight": 2.0}

    # --- with the append -----------------------------------------------------------------------------------------
    def test_rows_are_seen_as_soon_as_the_append_returns(self, stable: EventStore, other: EventStore) -> None:
        for number in range(20):
            self._put(stable, pet(f"{number:02d}", version=number))
            assert len(pets(other)) == number + 1

    def test_rows_go_with_their_events_or_not_at_all(self, stable: EventStore) -> None:
        stream = new_stream()
        stable.append([envelope(stream, 1)], rows=[pet("a", name="first")])
        with pytest.raises(StreamConflict):
            stable.append([envelope(new_stream(), 1), envelope(stream, 1)], rows=[pet("a", name="second"), pet("b")])
        assert [row["name"] for row in pets(stable)] == ["first"]

    def test_events_go_with_their_rows_or_not_at_all(self, stable: EventStore) -> None:
        stream, head = new_stream(), stable.head()
        with pytest.raises(SchemaMismatch):
            stable.append([envelope(stream, 1)], rows=[pet("a"), RowWrite("ghosts", {"id": "a"}, {"x": 1})])
        assert stable.load(stream) == []
        assert pets(stable) == []
        assert stable.head() == head
        stable.append([envelope(stream, 1)], rows=[pet("a")])

    def test_an_append_repeated_does_not_write_its_rows_again(self, stable: EventStore) -> None:
        given = [envelope(new_stream(), 1)]
        stable.append(given, rows=[pet("a", name="as it was")])
        self._put(stable, pet("a", name="newer"))
        stable.append(given, rows=[pet("a", name="as it was")])
        assert [row["name"] for row in pets(stable)] == ["newer"]

    # --- positions -----------------------------------------------------------------------------------------------
    def test_a_position_moves_with_its_rows(self, stable: EventStore, other: EventStore) -> None:
        views = stable.views
        assert views.position("pets:1") is None
        assert views.advance("pets:1", None, 3, [pet("a", name="three")])
        assert other.views.position("pets:1") == 3
        assert views.advance("pets:1", 3, 9, [pet("a", name="nine")])
        assert (views.position("pets:1"), pets(other)[0]["name"]) == (9, "nine")

    def test_beginning_anew_empties_tables_and_starts_at_zero(self, stable: EventStore, other: EventStore) -> None:
        for _ in range(3):
            stable.views.begin([PETS], "pets:1")
            assert (other.views.position("pets:1"), pets(other)) == (0, [])
            assert other.views.advance("pets:1", 0, 3, [pet("a", name="three")])

    @pytest.mark.parametrize("expected", [None, 0, 2, 4])
    def test_a_position_that_moved_on_changes_nothing(self, stable: EventStore, expected: int | None) -> None:
        stable.views.advance("pets:1", None, 3, [pet("a", name="three")])
        assert not stable.views.advance("pets:1", expected, 5, [pet("a", name="five"), pet("b")])
        assert stable.views.position("pets:1") == 3
        assert [row["name"] for row in pets(stable)] == ["three"]

    def test_a_position_that_never_was_cannot_be_expected(self, stable: EventStore) -> None:
        assert not stable.views.advance("pets:1", 0, 5, [pet("a")])
        assert stable.views.position("pets:1") is None
        assert pets(stable) == []

    def test_many_rows_at_once_are_written_like_single_ones(self, stable: EventStore) -> None:
        """Texts that look like something else, absent and extreme values: what went in comes out."""
        odd = ['"', "\\", "\\N", "NULL", "null", "{a,b}", "a\nb", "", " ", "',\"", "é😀", "None"]
        names = [*odd, None]
        rows = [(f"p{n}", name, n * 2**40, 0.1 + n if n % 2 else None) for n, name in enumerate(names)]
        first = RowsWrite(PETS.name, PETS.key, ("name", "version", "weight"), rows)
        again = RowsWrite(PETS.name, PETS.key, ("version",), [("p0", -(2**63)), ("p1", 2**63 - 1)])
        stable.views.advance("pets:1", None, 3, [pet("p0", name="before"), first, again, pet("z")])
        found = {row["pet_id"]: row for row in pets(stable)}
        assert len(found) == len(rows) + 1
        for pet_id, name, version, weight in rows[2:]:
            row = found[pet_id]
            assert (row["name"], row["version"], row["weight"]) == (name, version, weight)
        assert (found["p0"]["version"], found["p1"]["version"]) == (-(2**63), 2**63 - 1)
        assert (found["p0"]["name"], found["p1"]["name"]) == (odd[0], odd[1])

    def test_many_rows_go_in_together_or_not_at_all(self, stable: EventStore) -> None:
        many = RowsWrite(PETS.name, PETS.key, ("version",), [("a", 1), ("x", 2**63)])
        with pytest.raises(ValueError, match=r"stored"):
            stable.views.advance("pets:1", None, 3, [many])
        assert (pets(stable), stable.views.position("pets:1")) == ([], None)

    def test_a_position_stays_where_its_rows_fail(self, stable: EventStore) -> None:
        stable.views.advance("pets:1", None, 3, [pet("a")])
        with pytest.raises(SchemaMismatch):
            stable.views.advance("pets:1", 3, 5, [pet("b"), RowWrite("ghosts", {"id": "a"}, {"x": 1})])
        with pytest.raises(ValueError, match="cannot be stored"):
            stable.views.advance("pets:1", 3, 5, [pet("b"), pet("c", version=2**70)])
        assert stable.views.position("pets:1") == 3
        assert [row["pet_id"] for row in pets(stable)] == ["a"]

    def test_of_two_projectors_one_moves(self, stable: EventStore, reopen: OpenStore) -> None:
        racers, rounds = 6, 15
        line = threading.Barrier(racers, timeout=self.patience)

        def race(number: int) -> int:
            won = 0
            mine = reopen()
            try:
                for turn in range(rounds):
                    line.wait()
                    rows = [pet(f"{turn:02d}-{number}", version=turn)]
                    won += mine.views.advance("pets:1", turn - 1 if turn else None, turn, rows)
            finally:
                mine.close()
            return won

        with ThreadPoolExecutor(racers) as pool:
            runs = [pool.submit(race, number) for number in range(racers)]
            assert sum(run.result(self.patience) for run in runs) == rounds
        assert [row["version"] for row in pets(stable)] == list(range(rounds))
