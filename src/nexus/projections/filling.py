"""Filling the new table of a plain read model from the whole log: each row is written once, when it is whole.

One thread is enough: the database reads the next page and takes the rows of the one before while this process is busy
with the one between. ADR 0032 has the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Final

from nexus.domain.ports import EventStore, RowsWrite, RowWrite, Table
from nexus.projections.catalog import PlainProjection
from nexus.projections.columns import Row
from nexus.projections.plain import COLUMNS, RawEvent, Reader, Rows, Shape, grouped, write
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


class _Filling:
    """The rows of a table that is empty at the log's beginning, each of them once, as soon as it is whole."""

    def __init__(self, projection: PlainProjection, poisoned: dict[str, Poison]) -> None:
        """`poisoned` grows by whatever cannot be taken."""
        (self._table,) = projection.tables
        self._reader = Reader(projection, poisoned, frozenset())
        self._begun: Rows = {}
        self._late: Rows = {}
        self._ends: dict[tuple[Shape, Shape], Callable[[Row], Row]] = {}

    def rows(self, page: Sequence[RawEvent]) -> list[Row]:
        """New ones, with the values of all columns of the table, that nothing is to be written to any more."""
        width, begun, late, ends = len(self._table.key), self._begun, self._late, self._ends
        done: list[Row] = []
        for kind, row in self._reader.read(page):
            key = row[:width]
            if key not in begun:
                if kind.begins and key not in late:
                    begun[key] = kind.shape, row
                else:
                    write(late, key, kind.shape, row)
            elif kind.ends:
                before, there = begun.pop(key)
                shapes = before, kind.shape
                if shapes not in ends:
                    ends[shapes] = before.whole(self._table.columns, kind.shape)
                done.append(ends[shapes]((*there, *row, None)))
            else:
                write(begun, key, kind.shape, row)
        if len(begun) > _MOST_BEGUN:
            done.extend(self.rest())
        return done

    @property
    def is_full(self) -> bool:
        """Whether too many wait for being written to a row that went out already."""
        return len(self._late) > _MOST_LATE

    def rest(self) -> list[Row]:
        """The new ones that were kept back."""
        whole = {shape: shape.whole(self._table.columns) for shape, _ in self._begun.values()}
        left = [whole[shape]((*row, None)) for shape, row in self._begun.values()]
        self._begun.clear()
        return left

    def late(self, table: str) -> list[RowsWrite]:
        """What is to be written to rows that went out already, in a table that has its key."""
        return grouped(self._late, table, self._table.key)
