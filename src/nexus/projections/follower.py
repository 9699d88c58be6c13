"""Carrying one projection forward: a page of the log, its rows and the new position in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from nexus.domain.errors import NexusError, StoreError
from nexus.domain.events import Envelope
from nexus.domain.ports import EventStore, RowsWrite, RowWrite
from nexus.projections.catalog import Projection, is_following, key
from nexus.projections.positions import quarantined_under, skipped
from nexus.projections.replay import Poison, coalesced, replay

PAGE: Final = 1000
"""Events per transaction."""


class Follower:
    """One projection's way along the log. Several may follow with the same key: each page is written once."""

    def __init__(
        self,
        store: EventStore,
        projection: Projection,
        *,
        written_as: str = "",
        tables: Mapping[str, str] | None = None,
        honours_skips: bool = True,
    ) -> None:
        """`written_as` and `tables` ({name: name instead}) lead the rows elsewhere than into the live tables.

        `honours_skips` passes over the events that an operator said to.
        """
        self._store = store
        self._views = store.views
        self._projection = projection
        self._key = written_as or key(projection)
        self._tables = tables or {}
        self._honours_skips = honours_skips and is_following(projection)
        self.resume()

    def resume(self) -> None:
        """Go on from where the store says that this key stands."""
        self.position = self._views.position(self._key)
        held = quarantined_under(self._views, self._key)
        self.skips = skipped(self._views, self._projection.name) if self._honours_skips else frozenset[int]()
        self._replay = replay(self._projection, self._store, held, self.skips)
        self._known = {poison.originator_id for poison in held}

    @property
    def poisoned(self) -> Sequence[Poison]:
        return tuple(self.poisons.values())

    @property
    def poisons(self) -> dict[str, Poison]:
        """By aggregate; who applies events for this follower adds to it."""
        return self._replay.poisoned

    def table(self, name: str) -> str:
        """Where the rows of this table are led."""
        return self._tables.get(name, name)

    def quarantine(self, streams: Iterable[str]) -> list[RowWrite]:
        """What says that these aggregates are left alone."""
        return [self.poisons[stream].row(self._key) for stream in streams]

    def step(self, limit: int = PAGE, upto: int | None = None) -> int | None:
        """Take one page. Returns how many events it had; None when another follower had been there first."""
        page = self._store.read(self.position or 0, limit, upto=upto)
        if not page:
            self._check_against_the_log()
            return 0
        if self._known and self._known != {one.originator_id for one in quarantined_under(self._views, self._key)}:
            self.resume()  # an operator has let one go
            return self.step(limit, upto)
        try:
            moved = self.write(_last(page), self.rows(page))
        except NexusError:
            raise
        except Exception as error:  # noqa: BLE001 - a value that no column takes
            moved = self._find_poison(page, error)
        if not moved:
            self.resume()
            return None
        return len(page)

    def rows(self, page: Sequence[Envelope]) -> list[RowWrite]:
        """What a page changes, quarantine included, without writing it."""
        known = set(self.poisons)
        held = {one.originator_id for one in page if one.originator_id in known}
        rows = coalesced(self._replay.rows(page))
        if self._tables:
            rows = [RowWrite(self.table(row.table), row.key, row.values, row.newer) for row in rows]
        # Whoever is passed over is in quarantine, also if an operator lets it go at this very moment.
        rows.extend(self.quarantine(stream for stream in self.poisons if stream not in known or stream in held))
        return rows

    def write(self, position: int, rows: Sequence[RowWrite | RowsWrite]) -> bool:
        """Write rows and move to this position; False, and nothing written, when another was there first."""
        if not self._views.advance(self._key, self.position, position, rows):
            return False
        self.position = position
        self._known = set(self.poisons)
        return True

    def _find_poison(self, page: Sequence[Envelope], error: Exception) -> bool:
        self.resume()
        if len(page) == 1:
            poison = Poison.of(page[0], error)
            self.poisons[poison.originator_id] = poison
            return self.write(_last(page), [poison.row(self._key)])
        for envelope in page:
            try:
                moved = self.write(_last([envelope]), self.rows([envelope]))
            except NexusError:
                raise
            except Exception as alone:  # noqa: BLE001 - see above
                moved = self._find_poison([envelope], alone)
            if not moved:
                return False
        return True

    def _check_against_the_log(self) -> None:
        head = self._store.head()
        if self.position is not None and self.position > head:
            raise StoreError(
                f"The view {self._projection.name} stands at position {self.position}, but the log ends at {head}",
                hint="The log was restored from an older backup. Make sure that it is the right one, "
                "then run `nexus projections rebuild`.",
                projection=self._projection.name,
                position=self.position,
                head=head,
            )


def _last(page: Sequence[Envelope]) -> int:
    return page[-1].position or 0
