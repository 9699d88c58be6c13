"""Filling the new table of a plain read model from the whole log: each row is written once, when it is whole.

One thread is enough: the database reads the next page and takes the rows of the one before while this process is busy
with the one between. ADR 0032 has the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import repeat
from operator import add, itemgetter, lt
from typing import Final

from nexus.domain.ports import EventStore, RowsWrite, RowWrite, Table
from nexus.projections.catalog import PlainProjection
from nexus.projections.columns import Row
from nexus.projections.plain import COLUMNS, RawEvent, Reader, Rows, Shape, Some, Together, grouped, write
from nexus.projections.replay import Poison

_MOST_BEGUN: Final = 50_000
"""Rows that are kept back because more is to be written to them; beyond that they go out as they are."""
_MOST_LATE: Final = 50_000
"""Rows that went out and are to be written to again; beyond that the table gets its key, and is followed."""


def fill(
    store: EventStore,
    projection: PlainProjection,
    written_as: str,
    table: Table,
    page: int,
    progress: Callable[[int], None] | None,
) -> tuple[int | None, bool]:
    """Fill this table, which was begun without a key, from the log's beginning on, and complete it.

    Returns how many events it took, None when another wrote with the same key; and whether it stopped before the log's
    end, for too many rows were to be written to again. Whatever a column does not take is an error: the table then has
    to be begun again.
    """
    poisoned: dict[str, Poison] = {}
    filling = _Filling(projection, poisoned)
    events = last = 0

    def pages() -> Iterator[tuple[int, Sequence[Row]]]:
        nonlocal events, last
        with closing(store.pages(page, columns=COLUMNS)) as log:
            for found in log:
                rows = filling.rows(found)
                events, last = events + len(found), found[-1][0]
                yield last, rows
                if progress is not None:
                    progress(last)
                if filling.is_full:
                    break
        yield last, filling.rest()

    if not store.views.fill(table, written_as, pages()):
        return None, False
    store.views.complete([table])
    left: list[RowWrite | RowsWrite] = [
        *filling.late(table.name),
        *(poison.row(written_as) for poison in poisoned.values()),
    ]
    return events if store.views.advance(written_as, last, last, left, durable=False) else None, filling.is_full


_Begun = tuple[int, Shape, Row]
"""A row that more is to be written to: where in the log it began, at the latest, and what it has by now."""
_NOTHING: Final[Row] = (None,)
"""For the columns that nothing was written to."""


class _Filling:
    """The rows of a table that is empty at the log's beginning, each of them once, as soon as it is whole."""

    def __init__(self, projection: PlainProjection, poisoned: dict[str, Poison]) -> None:
        """`poisoned` grows by whatever cannot be taken."""
        (self._table,) = projection.tables
        self._reader = Reader(projection, poisoned, frozenset())
        self._key_of: Callable[[Row], Row] = itemgetter(slice(len(self._table.key)))
        self._begun: dict[Row, _Begun] = {}
        self._late: Rows = {}
        self._wholes: dict[Shape, dict[Shape, Callable[[Row], Row]]] = {}

    def rows(self, page: Sequence[RawEvent]) -> list[Row]:
        """New ones, with the values of all columns of the table, that nothing is to be written to any more."""
        kinds = self._reader.together(page)
        done = None if kinds is None else self._together([some for some in kinds.values() if some is not None])
        if done is None:
            done = self._in_order(page, kinds)
        if len(self._begun) > _MOST_BEGUN:
            done.extend(self.rest())
        return done

    def _together(self, kinds: Sequence[Some]) -> list[Row] | None:
        """Kind by kind, where every row begins once or ends once or both, one after the other; that is quick.

        Else None, and nothing has changed.
        """
        begun = self._begun
        new: dict[Row, _Begun] = {}
        count = 0
        for kind, positions, rows in kinds:
            if kind.begins:
                new.update(zip(map(self._key_of, rows), zip(positions, repeat(kind.shape), rows), strict=True))
                count += len(rows)
            elif not kind.ends:
                return None
        if len(new) < count or not (begun.keys().isdisjoint(new) and self._late.keys().isdisjoint(new)):
            return None
        begun.update(new)
        ended: list[tuple[Some, list[Row], list[_Begun | None]]] = []
        for some in kinds:
            if some.kind.ends:
                keys = [*map(self._key_of, some.rows)]
                ended.append((some, keys, [*map(begun.pop, keys, repeat(None))]))
        done: list[Row] = []
        for some, _, befores in ended:
            rows_of_them = self._ended(some, befores)
            if rows_of_them is None:
                for _, keys, found in ended:
                    begun.update((key, row) for key, row in zip(keys, found, strict=True) if row is not None)
                for key in new:
                    del begun[key]
                return None
            done += rows_of_them
        return done

    def _ended(self, some: Some, befores: Sequence[_Begun | None]) -> list[Row] | None:
        """What these events make of rows that had begun; None if one had not."""
        found = [*filter(None, befores)]
        if len(found) < len(befores):
            return None
        places, shapes, begun = zip(*found, strict=True)
        if not all(map(lt, places, some.positions)):
            return None
        whole = self._whole(shapes, some.kind.shape)
        rows: Iterable[Row] = map(add, map(add, begun, some.rows), repeat(_NOTHING))
        return [whole[shape](row) for shape, row in zip(shapes, rows, strict=True)]

    def _in_order(self, page: Sequence[RawEvent], kinds: Together | None) -> list[Row]:
        width, begun, late = len(self._table.key), self._begun, self._late
        done: list[Row] = []
        for kind, row in self._reader.in_order(page, kinds):
            key = row[:width]
            if key not in begun:
                if kind.begins and key not in late:
                    begun[key] = page[0][0], kind.shape, row
                else:
                    write(late, key, kind.shape, row)
            elif kind.ends:
                _, before, there = begun.pop(key)
                done.append(self._whole([before], kind.shape)[before](there + row + _NOTHING))
            else:
                place, before, there = begun[key]
                begun[key] = place, *before.join(there, kind.shape, row)
        return done

    def _whole(self, befores: Iterable[Shape], last: Shape) -> Mapping[Shape, Callable[[Row], Row]]:
        """What picks all columns of the table out of a row of these shapes, one of the last, and nothing."""
        known = self._wholes.setdefault(last, {})
        for shape in befores:
            if shape not in known:
                known[shape] = shape.whole(self._table.columns, last)
        return known

    @property
    def is_full(self) -> bool:
        """Whether too many wait for being written to a row that went out already."""
        return len(self._late) > _MOST_LATE

    def rest(self) -> list[Row]:
        """The new ones that were kept back."""
        whole = {shape: shape.whole(self._table.columns) for _, shape, _ in self._begun.values()}
        left = [whole[shape](row + _NOTHING) for _, shape, row in self._begun.values()]
        self._begun.clear()
        return left

    def late(self, table: str) -> list[RowsWrite]:
        """What is to be written to rows that went out already, in a table that has its key."""
        return grouped(self._late, table, self._table.key)
