"""The log as facts to fold: as much of each event as a state is made of, at half the price of its envelope."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from nexus.domain.encoding import read
from nexus.domain.events import Event

COLUMNS: Final = (
    "position", "originator_id", "originator_version", "topic", "schema_version", "state", "occurred_at",
)  # fmt: skip
"""Of the log, what `facts` takes, in this order."""


class LogFact(NamedTuple):
    """What of an envelope can be folded, by the same names, and where it stands."""

    position: int
    originator_id: str
    originator_version: int
    topic: str
    schema_version: int
    event: Event
    """`nexus.domain.events.Unread` where it cannot be read."""
    occurred_at: datetime


def facts(rows: Iterable[Sequence[Any]]) -> Iterator[LogFact]:
    """From raw rows of these columns, one by one: what nobody keeps costs little."""
    moment = datetime.fromisoformat
    for position, stream, version, topic, schema_version, state, at in rows:
        event = read(topic, schema_version, state)
        # Not through its constructor: that is a function in Python.
        yield _new(LogFact, (position, stream, version, topic, schema_version, event, moment(at)))


_new: Final = tuple.__new__
