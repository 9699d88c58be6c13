"""Contract: new tables are filled with new rows, and get their keys and indexes when they are full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from nexus.domain.ports import EventStore, RowsWrite, Scalar
from nexus.testing.store_contract.base import PETS, StoreContractBase, envelope, new_stream

NEW = replace(PETS, name="pets__new")
Page = tuple[int, Sequence[tuple[Scalar, ...]]]


def litter(position: int, *names: str | None) -> Page:
    """A page with a pet of each name."""
    return position, [(f"p{position}.{number}", position, name, None) for number, name in enumerate(names)]


class FillContract(StoreContractBase):
    @pytest.fixture
    def begun(self, store: EventStore) -> Iterator[EventStore]:
        store.views.begin([NEW], "pets:new", indexed=False, keyed=False)
        yield store
        store.views.drop([NEW.name], ["pets:new"])

    def test_a_table_is_filled_completed_and_written_on(self, begun: EventStore, other: EventStore) -> None:
        assert begun.views.fill(NEW, "pets:new", [litter(3, "a", "b"), litter(5), litter(8, "c")])
        for _ in range(2):  # another process may have been first
            begun.views.complete([NEW])
        late = RowsWrite(NEW.name, NEW.key, ("name",), [("p3.0", "d"), ("p9.0", "e")])
        assert begun.views.advance("pets:new", 8, 9, [late], durable=False)
        assert self._new(other) == ["d", "b", "c", "e"]

    def test_what_went_in_comes_out(self, begun: EventStore) -> None:
        names = ['"', "\\", "\\N", "\\.", "NULL", "", " ", "a\nb", "a\r\nb", "\t", "é😀", "None", None]
        assert begun.views.fill(NEW, "pets:new", [litter(1, *names), (2, [("max", 2**63 - 1, None, 0.1 + 0.2)])])
        rows = begun.views.query("SELECT version, name, weight FROM pets__new")
        assert [row["name"] for row in rows[:-1]] == names
        assert list(rows[-1].values()) == [2**63 - 1, None, 0.1 + 0.2]

    def test_many_pages(self, begun: EventStore, other: EventStore) -> None:
        """More than go into one transaction: the position moves, and whoever looks sees whole pages."""
        seen: list[tuple[int, int]] = []

        def pages() -> Iterator[Page]:
            for position in range(1, 101):
                yield litter(position, "one", "two")
                count = len(self._new(other))
                seen.append((other.views.position("pets:new") or 0, count))

        assert begun.views.fill(NEW, "pets:new", pages())
        assert all(count == 2 * position for position, count in seen)
        assert len(set(seen)) > 2
        assert (other.views.position("pets:new"), len(self._new(other))) == (100, 200)

    def test_who_comes_second_writes_nothing(self, begun: EventStore, other: EventStore) -> None:
        def pages() -> Iterator[Page]:
            yield litter(3, "mine")
            assert other.views.fill(NEW, "pets:new", [litter(2, "theirs")])

        first = iter(pages())
        assert not begun.views.fill(NEW, "pets:new", [next(first), *first])
        assert (begun.views.position("pets:new"), self._new(begun)) == (2, ["theirs"])

    def test_rows_of_one_key_are_an_error(self, begun: EventStore) -> None:
        def fill() -> None:
            begun.views.fill(NEW, "pets:new", [litter(3, "a"), litter(3, "a again")])
            begun.views.complete([NEW])

        with pytest.raises(Exception, match=r"(?i)unique"):
            fill()

    def test_what_cannot_be_stored_is_an_error(self, begun: EventStore) -> None:
        self._fill_fails(begun, [litter(3, "a"), (5, [("odd", 2**63, None, None)])], (ValueError, OverflowError))

    def test_a_page_that_cannot_be_made_is_its_makers_error(self, begun: EventStore) -> None:
        def pages() -> Iterator[Page]:
            yield litter(3, "a")
            raise LookupError("no more pages")

        self._fill_fails(begun, pages(), LookupError)

    def _fill_fails(
        self,
        store: EventStore,
        pages: Sequence[Page] | Iterator[Page],
        error: type[Exception] | tuple[type[Exception], ...],
    ) -> None:
        with pytest.raises(error):
            store.views.fill(NEW, "pets:new", pages)
        assert store.views.position("pets:new") in {0, 3}
        assert self._new(store) == (["a"] if store.views.position("pets:new") else [])
        store.views.begin([NEW], "pets:new", indexed=False, keyed=False)
        assert store.views.fill(NEW, "pets:new", [litter(7, "b")]), "begun anew, it can be filled"
        assert self._new(store) == ["b"]

    @pytest.mark.parametrize("size", [1, 2, 3, 100])
    def test_the_log_in_pages(self, store: EventStore, size: int) -> None:
        stream = new_stream()
        store.append([envelope(stream, version) for version in range(1, 7)])
        pages = list(store.pages(size))
        assert [row for page in pages for row in page] == list(store.raw(0))
        assert all(len(page) <= size for page in pages)
        short = [row for page in store.pages(size, columns=("position", "originator_version")) for row in page]
        assert [version for _, version in short] == [1, 2, 3, 4, 5, 6]

    def test_an_empty_log_has_no_pages(self, store: EventStore) -> None:
        assert list(store.pages(10)) == []

    def test_pages_that_nobody_wants_are_no_hindrance(self, store: EventStore) -> None:
        store.append([envelope(new_stream(), 1) for _ in range(3)])
        for _ in range(15):  # more often than a store may have connections
            pages = store.pages(1)
            assert len(next(pages)) == 1
            store.append([envelope(new_stream(), 1)])
            pages.close()
        assert len(list(store.pages(1))) == len(store.raw(0)) == 18

    def _new(self, store: EventStore) -> list[object]:
        return [row["name"] for row in store.views.query("SELECT name FROM pets__new ORDER BY pet_id")]
