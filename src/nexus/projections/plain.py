"""From raw pages of the log to rows, for read models that need no more of an event than JSON's own kinds of values.

Neither envelopes nor events are made, and rows of one shape travel as one value: a page costs a third of its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from operator import itemgetter
from typing import Any, Final

from nexus.domain.errors import UnreadableEvent
from nexus.domain.plain import plain
from nexus.domain.ports import RowsWrite, Scalar
from nexus.projections.catalog import PlainProjection
from nexus.projections.replay import Poison

COLUMNS: Final = (
    "position", "originator_id", "topic", "schema_version", "state", "occurred_at", "tenant_id", "actor", "agent_id",
)  # fmt: skip
"""Of the log, what it takes, in this order."""

RawEvent = Sequence[Any]


Row = tuple[Scalar, ...]
"""The key's values, then those of the columns of a `_Shape`."""


class _Shape:
    """Columns that are written together, and what becomes of a row that others are written to, too."""

    def __init__(self, key: int, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self._key = key
        self._joined: dict[_Shape, tuple[_Shape, Callable[[Row], Row]]] = {}

    def join(self, row: Row, later: _Shape, more: Row) -> tuple[_Shape, Row]:
        """The row after both; what is later counts."""
        known = self._joined.get(later)
        if known is None:
            known = self._joined[later] = self._join(later)
        shape, pick = known
        return shape, pick(row + more)

    def _join(self, later: _Shape) -> tuple[_Shape, Callable[[Row], Row]]:
        columns = tuple(dict.fromkeys(self.columns + later.columns))
        ours = {name: self._key + place for place, name in enumerate(self.columns)}
        begin = self._key + len(self.columns) + self._key
        ours.update((name, begin + place) for place, name in enumerate(later.columns))
        return _Shape(self._key, columns), itemgetter(*range(self._key), *(ours[name] for name in columns))


_Rows = dict[Row, tuple[_Shape, Row]]


class PlainReplay:
    """What `replay` gives for pages of envelopes, for pages of raw events."""

    def __init__(
        self,
        projection: PlainProjection,
        table: str,
        poisoned: dict[str, Poison],
        skipped: AbstractSet[int],
        *,
        fresh: bool,
    ) -> None:
        """`table` is where the rows go; `poisoned` grows by whatever cannot be taken.

        `fresh` says that the table was empty at the log's beginning, so that what begins there is new.
        """
        (own,) = projection.tables
        self._table, self._key = table, own.key
        self._poisoned, self._skipped = poisoned, skipped
        shapes = {columns: _Shape(len(own.key), columns) for columns, _ in projection.plain.values()}
        begins = projection.begins if fresh else frozenset[str]()
        self._kinds = {
            topic: (shapes[columns], row_of, topic in begins) for topic, (columns, row_of) in projection.plain.items()
        }

    def rows(self, page: Sequence[RawEvent]) -> list[RowsWrite]:
        """What this page changes."""
        kinds, poisoned, skipped, width = self._kinds, self._poisoned, self._skipped, len(self._key)
        new: _Rows = {}
        others: _Rows = {}
        for position, stream, topic, schema_version, state, at, tenant, actor, agent in page:
            if stream in poisoned or position in skipped:
                continue
            try:
                event = plain(topic, schema_version, state)
                if topic not in kinds:
                    continue
                shape, row_of, begins = kinds[topic]
                row = row_of(event, stream, at, (tenant, actor, agent))
            except Exception as error:  # noqa: BLE001 - whatever a read model trips over, the others go on
                reason = error.message if isinstance(error, UnreadableEvent) else f"{type(error).__name__}: {error}"
                poisoned[stream] = Poison(stream, position, topic, schema_version, reason[:500])
                continue
            key = row[:width]
            if key in new:
                before, there = new[key]
                new[key] = before.join(there, shape, row)
            elif key in others:
                before, there = others[key]
                others[key] = before.join(there, shape, row)
            elif begins:
                new[key] = shape, row
            else:
                others[key] = shape, row
        return [*self._grouped(new, fresh=True), *self._grouped(others, fresh=False)]

    def _grouped(self, found: _Rows, *, fresh: bool) -> Iterator[RowsWrite]:
        groups: dict[_Shape, list[Row]] = {}
        for shape, row in found.values():
            groups.setdefault(shape, []).append(row)
        for shape, rows in groups.items():
            yield RowsWrite(self._table, self._key, shape.columns, rows, fresh)
