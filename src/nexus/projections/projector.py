"""Everything that keeps read models true: preparing, catching up, status, rebuilding, verifying."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from nexus.domain.ports import EventStore
from nexus.projections.catalog import FOLLOWING, FollowingProjection, Projection, is_following, key, named
from nexus.projections.follower import PAGE, Follower
from nexus.projections.held import quarantined
from nexus.projections.inline import INLINE
from nexus.projections.positions import Standing, standing
from nexus.projections.rebuild import RebuildInProgress, Rebuilt, rebuild
from nexus.projections.replay import Poison
from nexus.projections.tables import TABLES
from nexus.projections.verify import Verdict, verify

_PATIENCE: Final = 600.0
"""Seconds to wait for another process's rebuild of what this one needs, too."""


@dataclass(frozen=True, slots=True)
class Status:
    """How far a projection is."""

    name: str
    version: int
    kind: str
    """`inline`: written with the append, never behind; `following`: written from the log."""
    position: int
    head: int
    lag: int
    """Events that it has still to take."""
    quarantined: tuple[Poison, ...]


def prepare(store: EventStore) -> None:
    """Make what is missing and rebuild what an older version left. To be called before the first append."""
    store.views.create(TABLES)
    for projection in INLINE:
        while (found := standing(store.views, projection)) is not Standing.BUILT:
            if found is Standing.FRESH and store.head() == 0:
                store.views.advance(key(projection), None, 0, ())
            else:
                _rebuild_together(store, projection)


def catch_up(store: EventStore, projection: FollowingProjection, *, page: int = PAGE) -> int:
    """Follow the log to its end; returns the position. Whoever does it, every event is applied exactly once.

    Rebuilds first what an older version left. Raises `StoreError` for a view that is ahead of the log.
    """
    if standing(store.views, projection) is Standing.OUTDATED:
        _rebuild_together(store, projection)
    follower = Follower(store, projection)
    while follower.step(page) != 0:
        pass
    return follower.position or 0


def _rebuild_together(store: EventStore, projection: Projection) -> None:
    """Rebuild, or wait for whoever does."""
    deadline = time.monotonic() + _PATIENCE
    while standing(store.views, projection) is not Standing.BUILT:
        try:
            rebuild(store, projection)
        except RebuildInProgress:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Projector:
    """The read models of one store, by name. Any number of projectors may work at once, in any processes."""

    def __init__(self, store: EventStore, following: Iterable[FollowingProjection] = FOLLOWING) -> None:
        self._store = store
        self._following = tuple(following)

    def catch_up(self, name: str | None = None) -> None:
        """Follow the log to its end: one projection, or all. Inline ones are there already."""
        wanted: tuple[Projection, ...] = self._following if name is None else (self._named(name),)
        for projection in wanted:
            if is_following(projection):
                catch_up(self._store, projection)

    def status(self) -> list[Status]:
        """Of every projection; `quarantined` holds what an operator has to look at."""
        head = self._store.head()
        found = []
        everything: tuple[Projection, ...] = INLINE + self._following
        for projection in everything:
            following = is_following(projection)
            position = (self._store.views.position(key(projection)) or 0) if following else head
            found.append(
                Status(
                    projection.name,
                    projection.version,
                    "following" if following else "inline",
                    position,
                    max(head, position) if following else head,
                    _events_between(self._store, position, head),
                    tuple(quarantined(self._store.views, projection)),
                )
            )
        return found

    def rebuild(self, name: str, progress: Callable[[int], None] | None = None) -> Rebuilt:
        """Build anew from the whole log, beside the tables in use. Raises `RebuildInProgress`."""
        return rebuild(self._store, self._named(name), progress)

    def verify(self, name: str) -> Verdict:
        """Compare with a replay of the whole log."""
        return verify(self._store, self._named(name))

    def _named(self, name: str) -> Projection:
        for projection in self._following:
            if projection.name == name:
                return projection
        return named(name)


def _events_between(store: EventStore, after: int, upto: int) -> int:
    if after >= upto:
        return 0
    (counted,) = store.views.query(
        "SELECT count(*) AS events FROM events WHERE position > :after AND position <= :upto",
        {"after": after, "upto": upto},
    )
    return int(counted["events"])
