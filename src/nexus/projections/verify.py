"""Holding a read model against a replay of the whole log, row by row, while the world goes on.

The replay goes into tables aside, the comparison is one statement per direction. Rows that differ are looked at
again, each at one moment of the log, so that what was written in between is not taken for a fault.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from nexus.domain.errors import StoreError, UnreadableEvent
from nexus.domain.ports import EventStore, Row, Scalar, Table
from nexus.projections.aggregates import AGGREGATES
from nexus.projections.catalog import Projection, is_following, key
from nexus.projections.follower import Follower
from nexus.projections.held import quarantined_under
from nexus.projections.inline import InlineProjection
from nexus.projections.positions import positions

_ABANDONED: Final = 24 * 3600.0
"""Seconds after which the tables of a verification that never ended are removed by the next one."""
_LOOKS: Final = 200
"""How often one row is looked at again before it counts as never still."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first row that is not what a replay makes it."""

    table: str
    key: Mapping[str, Scalar]
    column: str | None
    """None when the whole row is missing or should not be there."""
    in_view: Any
    by_replay: Any

    def __str__(self) -> str:
        name = f"{self.table} {', '.join(str(value) for value in self.key.values())}"
        if self.column is not None:
            return f"{name}: {self.column} is {self.in_view!r} in the view and {self.by_replay!r} by replay"
        return f"{name}: the view lacks it" if self.in_view is None else f"{name}: a replay does not make it"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification found. It holds up to `position` at least."""

    name: str
    position: int
    rows: int
    quarantined: int
    """Aggregates that could not be replayed; an inline view's rows of these are not judged."""
    difference: Difference | None

    @property
    def is_equal(self) -> bool:
        return self.difference is None


def verify(store: EventStore, projection: Projection) -> Verdict:
    """Compares the live tables with a replay from position 0. Needs room for a second copy of them meanwhile."""
    views = store.views
    _sweep(store, projection)
    mark = f"{int(time.time()):08x}{random.randrange(16**6):06x}"
    aside, tables = _aside(projection, mark)
    views.begin([replace(table, name=tables[table.name]) for table in projection.tables], aside, indexed=False)
    try:
        if is_following(projection):
            live = Follower(store, projection)
            while live.step() != 0:
                pass
        follower = Follower(store, projection, written_as=aside, tables=tables, careful=True)
        while follower.step(upto=views.position(key(projection)) if is_following(projection) else None):
            pass
        difference = _first_difference(store, projection, follower, tables)
        (counted,) = views.query(f"SELECT count(*) AS rows FROM {projection.tables[0].name}")
        return Verdict(projection.name, follower.position or 0, counted["rows"], len(follower.poisoned), difference)
    finally:
        _remove(store, projection, mark)


def _aside(projection: Projection, mark: str) -> tuple[str, dict[str, str]]:
    """Where one verification keeps its replay; `mark` tells it from others that go on, and begins with its time."""
    return f"{key(projection)}:check:{mark}", {table.name: f"{table.name}__check_{mark}" for table in projection.tables}


def _remove(store: EventStore, projection: Projection, mark: str) -> None:
    aside, tables = _aside(projection, mark)
    poisoned = quarantined_under(store.views, aside)
    store.views.advance(
        aside,
        store.views.position(aside),
        0,
        [one.gone(aside) for one in poisoned],
    )
    store.views.drop([*tables.values()], forget=[aside])


def _sweep(store: EventStore, projection: Projection) -> None:
    """Remove what a verification that was killed has left, once nobody can be at it any more."""
    for found in positions(store.views, projection.name):
        kind, _, mark = found.removeprefix(f"{key(projection)}:").partition(":")
        if kind == "check" and int(mark[:8], 16) < time.time() - _ABANDONED:
            _remove(store, projection, mark)


def _first_difference(
    store: EventStore, projection: Projection, follower: Follower, tables: Mapping[str, str]
) -> Difference | None:
    for table in projection.tables:
        for where in _suspects(store, table, tables[table.name]):
            if is_following(projection):
                difference = _judged_aside(store, projection, follower, table, tables[table.name], where)
            else:
                difference = _judged_by_stream(store, cast(InlineProjection, projection), table, where)
            if difference is not None:
                return difference
    return None


def _suspects(store: EventStore, table: Table, aside: str) -> list[dict[str, Scalar]]:
    """Keys of rows that are in one of the tables and not, or not so, in the other."""
    columns = ", ".join(table.columns)
    found: dict[tuple[Scalar, ...], None] = {}
    for one, other in ((table.name, aside), (aside, table.name)):
        rows = store.views.query(f"SELECT {columns} FROM {one} EXCEPT SELECT {columns} FROM {other}")
        found.update(dict.fromkeys(tuple(row[column] for column in table.key) for row in rows))
    return [dict(zip(table.key, values, strict=True)) for values in found]


def _judged_by_stream(
    store: EventStore, projection: InlineProjection, table: Table, where: Mapping[str, Scalar]
) -> Difference | None:
    """An inline row is right when it is what the aggregate's stream folds to, before and after it was read."""
    aggregate = AGGREGATES[projection.aggregate]
    stream = aggregate.stream(str(where[aggregate.key]))
    for _ in range(_LOOKS):
        try:
            before = aggregate.fold(None, store.history(stream))
            row = _row(store, table, table.name, where)
            last = store.last(stream)
        except (UnreadableEvent, ValueError, KeyError):
            return None  # cannot be replayed: counted as quarantined
        if (before.version if before is not None else 0) != (last.originator_version if last is not None else 0):
            continue
        wanted = None
        for write in projection.rows(before) if before is not None else ():
            if write.table == table.name and dict(write.key) == dict(where) and write.values is not None:
                wanted = {**dict.fromkeys(table.columns), **write.key, **write.values}
        return _difference(table, where, row, wanted)
    raise StoreError(f"{table.name} {where} never stood still")


def _judged_aside(
    store: EventStore, projection: Projection, follower: Follower, table: Table, aside: str, where: Mapping[str, Scalar]
) -> Difference | None:
    """A followed row is right when it is what the replay made at the same position."""
    views = store.views
    for _ in range(_LOOKS):
        position = views.position(key(projection)) or 0
        while (follower.position or 0) < position and follower.step(upto=position):
            pass
        row, wanted = _row(store, table, table.name, where), _row(store, table, aside, where)
        if (views.position(key(projection)) or 0) == position == (follower.position or 0):
            return _difference(table, where, row, wanted)
    raise StoreError(f"{table.name} {where} never stood still")


def _row(store: EventStore, table: Table, name: str, where: Mapping[str, Scalar]) -> Row | None:
    condition = " AND ".join(f"{column} = :{column}" for column in table.key)
    found: Sequence[Row] = store.views.query(f"SELECT * FROM {name} WHERE {condition}", where)
    return found[0] if found else None


def _difference(
    table: Table, where: Mapping[str, Scalar], in_view: Row | None, by_replay: Row | None
) -> Difference | None:
    if in_view is None or by_replay is None:
        return None if in_view is by_replay else Difference(table.name, where, None, in_view, by_replay)
    for column in table.columns:
        if in_view[column] != by_replay[column]:
            return Difference(table.name, where, column, in_view[column], by_replay[column])
    return None
