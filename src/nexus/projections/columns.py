"""Events of one kind, column by column: what a plain read model is given, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nexus.domain.ports import Scalar

Row = tuple[Scalar, ...]


class Events(NamedTuple):
    """Of one topic, in the log's order; all columns are of the same length."""

    fields: Mapping[str, Sequence[Any]]
    """Of the payloads, as JSON has them."""
    streams: Sequence[str]
    occurred_at: Sequence[str]
    tenants: Sequence[str]
    actors: Sequence[str]
    agents: Sequence[str | None]

    def get(self, *names: str) -> Iterator[Sequence[Any]]:
        """A column for each of these fields."""
        return map(self.fields.__getitem__, names)


RowsOf = Callable[[Events], Iterable[Row]]
"""A row for each event: the values of the table's key, then of the columns that it writes."""
