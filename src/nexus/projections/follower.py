"""Carrying one projection forward: a page of the log, its rows and the new position in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from nexus.domain.errors import NexusError, StoreError
from nexus.domain.events import Envelope
from nexus.domain.ports import EventStore, RowWrite
from nexus.projections.catalog import Projection, key
from nexus.projections.positions import quarantined_under
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
    ) -> None:
        """`written_as` and `tables` ({name: name instead}) lead the rows elsewhere than into the live tables."""
        self._store = store
        self._views = store.views
        self._projection = projection
        self._key = written_as or key(projection)
        self._tables = tables or {}
        self._resume()

    def _resume(self) -> None:
        self.position = self._views.position(self._key)
        self._replay = replay(self._projection, self._store, quarantined_under(self._views, self._key))

    @property
    def poisoned(self) -> Sequence[Poison]:
        return tuple(self._replay.poisoned.values())

    def step(self, limit: int = PAGE, upto: int | None = None) -> int | None:
        """Take one page. Returns how many events it had; None when another follower had been there first."""
        page = self._store.read(self.position or 0, limit, upto=upto)
        if not page:
            self._check_against_the_log()
            return 0
        try:
            moved = self._write(page, self.rows(page))
        except NexusError:
            raise
        except Exception as error:  # noqa: BLE001 - a value that no column takes
            moved = self._find_poison(page, error)
        if not moved:
            self._resume()
            return None
        return len(page)

    def rows(self, page: Sequence[Envelope]) -> list[RowWrite]:
        """What a page changes, quarantine included, without writing it."""
        known = set(self._replay.poisoned)
        rows = [
            replace(row, table=self._tables.get(row.table, row.table)) for row in coalesced(self._replay.rows(page))
        ]
        rows.extend(poison.row(self._key) for stream, poison in self._replay.poisoned.items() if stream not in known)
        return rows

    def _write(self, page: Sequence[Envelope], rows: Sequence[RowWrite]) -> bool:
        last = page[-1].position or 0
        if not self._views.advance(self._key, self.position, last, rows):
            return False
        self.position = last
        return True

    def _find_poison(self, page: Sequence[Envelope], error: Exception) -> bool:
        self._resume()
        if len(page) == 1:
            poison = Poison.of(page[0], error)
            self._replay.poisoned[poison.originator_id] = poison
            return self._write(page, [poison.row(self._key)])
        for envelope in page:
            try:
                moved = self._write([envelope], self.rows([envelope]))
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
