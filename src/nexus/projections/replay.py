"""From pages of the log to rows: for read models that take event by event, and for those of folded state.

An event that cannot be read or taken does not stop anything: its aggregate is left alone from there on, and said so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from nexus.domain.events import Envelope, Unread
from nexus.domain.ports import EventStore, RowWrite, Scalar
from nexus.projections.aggregates import AGGREGATES
from nexus.projections.catalog import FollowingProjection, Projection, is_following
from nexus.projections.facts import LogFact
from nexus.projections.inline import InlineProjection
from nexus.projections.tables import QUARANTINE

_KEPT_STATES: Final = 20_000
"""Folded states kept between pages; others are loaded again when an event of theirs comes."""


@dataclass(frozen=True, slots=True)
class Poison:
    """Why an aggregate is in quarantine, and since which position."""

    originator_id: str
    position: int
    topic: str
    schema_version: int
    error: str

    @classmethod
    def of(cls, envelope: Envelope | LogFact, error: Exception) -> Poison:
        reason = envelope.event.reason if isinstance(envelope.event, Unread) else f"{type(error).__name__}: {error}"
        return cls(
            envelope.originator_id, envelope.position or 0, envelope.topic, envelope.schema_version, reason[:500]
        )

    def row(self, projection: str) -> RowWrite:
        """Puts the aggregate into the quarantine of this projection."""
        key = self._key(projection)
        values: dict[str, Scalar] = {
            "position": self.position,
            "topic": self.topic,
            "schema_version": self.schema_version,
            "error": self.error,
        }
        return RowWrite(QUARANTINE.name, key, values)

    def gone(self, projection: str) -> RowWrite:
        """Takes it out again."""
        return RowWrite(QUARANTINE.name, self._key(projection), None)

    def _key(self, projection: str) -> dict[str, Scalar]:
        return {"projection": projection, "originator_id": self.originator_id}


class _Unreadable(Exception):
    """The page holds a marker where the event should be."""


class Replay(Protocol):
    """Takes the log page by page, from where it began, without a gap."""

    poisoned: dict[str, Poison]
    """Aggregates left alone, those from before the first page included."""

    def rows(self, page: Iterable[Any]) -> list[RowWrite]:
        """What this page changes: of envelopes or, for what is folded, of facts."""
        ...


def replay(
    projection: Projection,
    store: EventStore,
    poisoned: Iterable[Poison] = (),
    skipped: AbstractSet[int] = frozenset(),
) -> Replay:
    """The right replay for a projection. `skipped` are positions of events to pass over; states know no gaps."""
    known = {poison.originator_id: poison for poison in poisoned}
    if is_following(projection):
        return _Applied(projection, known, skipped)
    return _Folded(cast(InlineProjection, projection), store, known)


class _Applied:
    """Event by event."""

    def __init__(self, projection: FollowingProjection, poisoned: dict[str, Poison], skipped: AbstractSet[int]) -> None:
        self._projection = projection
        self.poisoned = poisoned
        self._skipped = skipped

    def rows(self, page: Iterable[Envelope]) -> list[RowWrite]:
        rows: list[RowWrite] = []
        for envelope in page:
            if envelope.originator_id in self.poisoned or envelope.position in self._skipped:
                continue
            try:
                if isinstance(envelope.event, Unread):
                    raise _Unreadable
                rows.extend(self._projection.apply(envelope))
            except Exception as error:  # noqa: BLE001 - whatever a read model trips over, the others go on
                self.poisoned[envelope.originator_id] = Poison.of(envelope, error)
        return rows


class _Folded:
    """State by state: a page writes each aggregate that it touches once, as it is at the page's end."""

    def __init__(self, projection: InlineProjection, store: EventStore, poisoned: dict[str, Poison]) -> None:
        self._projection = projection
        self._aggregate = AGGREGATES[projection.aggregate]
        self._store = store
        self._states: OrderedDict[str, Any] = OrderedDict()
        self.poisoned = poisoned

    def rows(self, page: Iterable[Envelope | LogFact]) -> list[RowWrite]:
        touched: dict[str, int] = {}
        states, owns, fold = self._states, self._aggregate.owns, self._aggregate.fold
        for envelope in page:
            stream = envelope.originator_id
            state = states.get(stream)
            if stream in self.poisoned or (state is None and not owns(stream)):
                continue
            try:
                if isinstance(envelope.event, Unread):
                    raise _Unreadable
                if state is None or state.version != envelope.originator_version - 1:
                    state = self._before(envelope)
                if stream not in touched:
                    touched[stream] = 0 if state is None else state.version
                after = fold(state, (envelope,))
                if after is not state:
                    states[stream] = after
            except Exception as error:  # noqa: BLE001 - see above
                self.poisoned[stream] = Poison.of(envelope, error)
                if stream in touched:
                    # The state may be half changed: back to what it was before this event.
                    self._states.update(self._loaded(stream, envelope.originator_version - 1))
        rows = [
            row
            for stream, version in touched.items()
            if (state := self._states.get(stream)) is not None
            for row in self._projection.rows(state, version)
        ]
        self._forget(touched)
        return rows

    def _before(self, envelope: Envelope | LogFact) -> Any:
        stream, version = envelope.originator_id, envelope.originator_version - 1
        if stream not in self._states and version > 0:
            self._states.update(self._loaded(stream, version))
        state = self._states.get(stream)
        if (state.version if state is not None else 0) != version:
            raise ValueError(f"version {version} is missing")
        return state

    def _loaded(self, stream: str, version: int) -> dict[str, Any]:
        state = self._aggregate.fold(None, self._store.history(stream, upto=version)) if version else None
        return {stream: state} if state is not None else {}

    def _forget(self, touched: Iterable[str]) -> None:
        for stream in touched:
            state = self._states.get(stream)
            if state is not None:
                if self._aggregate.is_over(state):
                    del self._states[stream]
                else:
                    self._states.move_to_end(stream)
        while len(self._states) > _KEPT_STATES:
            self._states.popitem(last=False)


def coalesced(rows: Iterable[RowWrite]) -> list[RowWrite]:
    """One write per row instead of several, writes of one shape together: a page costs few statements."""
    done: list[RowWrite] = []
    latest: dict[tuple[object, ...], RowWrite] = {}

    def flush() -> None:
        done.extend(
            sorted(
                latest.values(),
                key=lambda row: (row.table, row.values is None, tuple(row.values or ()), row.newer or ""),
            )
        )
        latest.clear()

    for row in rows:
        where = (row.table, *row.key.values())
        known = latest.get(where)
        if known is not None and known.values is None and row.values is not None:
            flush()  # gone and back again: the new row keeps nothing of the old one
            known = None
        if known is None or known.values is None or row.values is None:
            latest[where] = row
        else:
            latest[where] = RowWrite(row.table, row.key, {**known.values, **row.values}, row.newer)
    flush()
    return done
