"""From raw pages of the log to rows, for read models that need no more of an event than JSON's own kinds of values.

Neither envelopes nor events are made; events of one kind are read together, column by column, and rows of one shape
travel as one value: a page costs a quarter of its time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import repeat
from operator import itemgetter
from typing import Any, Final, NamedTuple

from nexus.domain.errors import UnreadableEvent
from nexus.domain.plain import plain
from nexus.domain.ports import RowsWrite
from nexus.projections.catalog import PlainProjection
from nexus.projections.columns import Events, Row, RowsOf
from nexus.projections.replay import Poison

COLUMNS: Final = (
    "position", "originator_id", "topic", "schema_version", "state", "occurred_at", "tenant_id", "actor", "agent_id",
)  # fmt: skip
"""Of the log, what it takes, in this order."""
_KIND: Final = itemgetter(2, 3)

RawEvent = Sequence[Any]


class Shape:
    """Columns that are written together, and what becomes of a row that others are written to, too.

    A row of a shape has the key's values, then those of the columns.
    """

    def __init__(self, key: tuple[str, ...], columns: tuple[str, ...]) -> None:
        self.columns = columns
        self._key = key
        self._joined: dict[Shape, tuple[Shape, Callable[[Row], Row]]] = {}

    def join(self, row: Row, later: Shape, more: Row) -> tuple[Shape, Row]:
        """The row after both; what is later counts."""
        known = self._joined.get(later)
        if known is None:
            known = self._joined[later] = self._join(later)
        shape, pick = known
        return shape, pick(row + more)

    def _join(self, later: Shape) -> tuple[Shape, Callable[[Row], Row]]:
        shape = Shape(self._key, tuple(dict.fromkeys(self.columns + later.columns)))
        return shape, self.whole((*self._key, *shape.columns), later)

    def whole(self, columns: Iterable[str], later: Shape | None = None) -> Callable[[Row], Row]:
        """What picks these columns out of a row of this shape, one of the later shape, and None for what they lack."""
        names = [*self._key, *self.columns]
        if later is not None:
            names += [*later._key, *later.columns]
        places = {name: place for place, name in enumerate(names)}
        return itemgetter(*(places.get(name, len(names)) for name in columns))


class Kind:
    """What the events of a topic write."""

    def __init__(self, shape: Shape, rows_of: RowsOf, *, begins: bool, ends: bool) -> None:
        self.shape = shape
        self.rows_of = rows_of
        self.begins = begins
        self.ends = ends


Rows = dict[Row, tuple[Shape, Row]]
"""By key."""


class Some(NamedTuple):
    """Events of one kind, in the log's order, and what each of them writes."""

    kind: Kind
    positions: Sequence[int]
    rows: Sequence[Row]


Together = Mapping[tuple[str, int], Some | None]
"""Those of a page, by topic and schema version; None where they write nothing."""


class Reader:
    """What each event writes."""

    def __init__(self, projection: PlainProjection, poisoned: dict[str, Poison], skipped: AbstractSet[int]) -> None:
        (table,) = projection.tables
        shapes = {columns: Shape(table.key, columns) for columns, _ in projection.plain.values()}
        self._kinds = {
            topic: Kind(shapes[columns], rows_of, begins=topic in projection.begins, ends=topic in projection.ends)
            for topic, (columns, rows_of) in projection.plain.items()
        }
        self._poisoned, self._skipped = poisoned, skipped

    def together(self, page: Sequence[RawEvent]) -> Together | None:
        """Kind by kind; None where one of them cannot be taken, and which it is has to be found one by one."""
        if not self._is_clean(page):
            return None
        kinds: dict[tuple[str, int], list[RawEvent]] = defaultdict(list)
        for one in page:
            kinds[_KIND(one)].append(one)
        try:
            return {key: self._some(*key, events) for key, events in kinds.items()}
        except Exception:  # noqa: BLE001 - whatever a read model trips over
            return None

    def in_order(self, page: Sequence[RawEvent], together: Together | None) -> Iterator[tuple[Kind, Row]]:
        """Event by event, in the log's order."""
        if together is None:
            return self._one_by_one(page)
        found = {
            key: repeat(None) if some is None else zip(repeat(some.kind), some.rows) for key, some in together.items()
        }
        return filter(None, map(next, map(found.__getitem__, map(_KIND, page))))

    def _is_clean(self, page: Sequence[RawEvent]) -> bool:
        """Whether none of it is to be passed over."""
        return (not self._poisoned or self._poisoned.keys().isdisjoint([one[1] for one in page])) and (
            not self._skipped or self._skipped.isdisjoint([one[0] for one in page])
        )

    def _some(self, topic: str, schema_version: int, events: Sequence[RawEvent]) -> Some | None:
        positions, streams, _, _, states, *others = zip(*events, strict=True)
        fields = plain(topic, schema_version, states)
        kind = self._kinds.get(topic)
        if kind is None:
            return None
        # All are made now: what one of the events cannot be taken for is to be known before any is written.
        rows = [*kind.rows_of(Events(fields, streams, *others))]
        if len(rows) != len(events):
            raise ValueError(f"{len(rows)} rows for {len(events)} events")
        return Some(kind, positions, rows)

    def _one_by_one(self, page: Sequence[RawEvent]) -> Iterator[tuple[Kind, Row]]:
        for event in page:
            position, stream, topic, schema_version, *_ = event
            if stream in self._poisoned or position in self._skipped:
                continue
            try:
                some = self._some(topic, schema_version, [event])
            except Exception as error:  # noqa: BLE001 - whatever a read model trips over, the others go on
                reason = error.message if isinstance(error, UnreadableEvent) else f"{type(error).__name__}: {error}"
                self._poisoned[stream] = Poison(stream, position, topic, schema_version, reason[:500])
            else:
                if some is not None:
                    yield some.kind, some.rows[0]


class PlainReplay:
    """What `replay` gives for pages of envelopes, for pages of raw events."""

    def __init__(
        self, projection: PlainProjection, table: str, poisoned: dict[str, Poison], skipped: AbstractSet[int]
    ) -> None:
        """`table` is where the rows go; `poisoned` grows by whatever cannot be taken."""
        (own,) = projection.tables
        self._table, self._key = table, own.key
        self._reader = Reader(projection, poisoned, skipped)

    def rows(self, page: Sequence[RawEvent]) -> list[RowsWrite]:
        """What this page changes."""
        found: Rows = {}
        for kind, row in self._reader.in_order(page, self._reader.together(page)):
            write(found, row[: len(self._key)], kind.shape, row)
        return grouped(found, self._table, self._key)


def write(rows: Rows, key: Row, shape: Shape, row: Row) -> None:
    """Note what is written to the row of this key."""
    if key in rows:
        before, there = rows[key]
        rows[key] = before.join(there, shape, row)
    else:
        rows[key] = shape, row


def grouped(rows: Rows, table: str, key: tuple[str, ...]) -> list[RowsWrite]:
    """Rows of one shape together."""
    groups: dict[Shape, list[Row]] = defaultdict(list)
    for shape, row in rows.values():
        groups[shape].append(row)
    return [RowsWrite(table, key, shape.columns, some) for shape, some in groups.items()]
