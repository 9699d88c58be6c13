"""Carrying one projection forward: a page of the log, its rows and the new position in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, Final

from nexus.domain.errors import NexusError, StoreError
from nexus.domain.ports import EventStore, RowsWrite, RowWrite
from nexus.projections import facts, plain
from nexus.projections.catalog import Projection, is_following, is_plain, key
from nexus.projections.held import quarantined_under, skipped
from nexus.projections.replay import Poison, coalesced, replay

PAGE: Final = 1000
"""Events per transaction."""


Page = Sequence[Any]
"""Envelopes, or raw rows of the log for a read model that needs no more of it."""


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
        careful: bool = False,
    ) -> None:
        """`written_as` and `tables` ({name: name instead}) lead the rows elsewhere than into the live tables.

        `honours_skips` passes over the events that an operator said to; `careful` checks every event as it is read,
        where a read model could do without.
        """
        self._store = store
        self._views = store.views
        self._projection = projection
        self._key = written_as or key(projection)
        self._tables = tables or {}
        self._honours_skips = honours_skips and is_following(projection)
        self._careful = careful
        self.resume()

    def resume(self) -> None:
        """Go on from where the store says that this key stands."""
        self.position = self._views.position(self._key)
        held = quarantined_under(self._views, self._key)
        skips = skipped(self._views, self._projection.name) if self._honours_skips else frozenset[int]()
        self._replay = replay(self._projection, self._store, held, skips)
        self._known = {poison.originator_id for poison in held}
        self._plain: plain.PlainReplay | None = None
        if not self._careful and is_plain(self._projection):
            (table,) = self._projection.tables
            self._plain = plain.PlainReplay(self._projection, self._table(table.name), self._poisons, skips)

    @property
    def poisoned(self) -> Sequence[Poison]:
        """Aggregates that are left alone."""
        return tuple(self._poisons.values())

    @property
    def _poisons(self) -> dict[str, Poison]:
        return self._replay.poisoned

    def _table(self, name: str) -> str:
        return self._tables.get(name, name)

    # --- page by page ------------------------------------------------------------------------------------------------
    def step(self, limit: int = PAGE, upto: int | None = None) -> int | None:
        """Take one page. Returns how many events it had; None when another follower had been there first."""
        page = self.read(self.position or 0, limit, upto)
        if not page:
            self._check_against_the_log()
            return 0
        if self._known and self._known != {one.originator_id for one in quarantined_under(self._views, self._key)}:
            self.resume()  # an operator has let one go
            return self.step(limit, upto)
        try:
            moved = self.write(self.last(page), self.rows(page))
        except NexusError:
            raise
        except Exception:  # noqa: BLE001 - a value that no column takes
            moved = self._find_poison(len(page), upto)
        if not moved:
            self.resume()
            return None
        return len(page)

    def read(self, after: int, limit: int, upto: int | None = None) -> Page:
        """The log after this position, as `rows` takes it."""
        columns = self.columns
        if columns is None:
            return self._store.read(after, limit, upto=upto)
        return self._store.raw(after, limit, upto=upto, columns=columns)

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Of the raw rows that `rows` takes, position and stream first; None where it takes envelopes."""
        if self._plain is not None:
            return plain.COLUMNS
        return None if is_following(self._projection) else facts.COLUMNS

    def last(self, page: Page) -> int:
        """The position of a page's last event."""
        position: int = page[-1].position if self.columns is None else page[-1][0]
        return position

    def rows(self, page: Iterable[Any]) -> list[RowWrite | RowsWrite]:
        """What a page changes, quarantine included, without writing it. Goes through the page once."""
        known = set(self._poisons)
        held: set[str] = set()
        if known:
            page = self._noting(page, known, held)
        rows: list[RowWrite | RowsWrite] = []
        if self._plain is not None:
            rows.extend(self._plain.rows([*page]))
        else:
            for row in coalesced(self._replay.rows(self._read(page))):
                rows.append(replace(row, table=self._table(row.table)) if self._tables else row)
        # Whoever is passed over is in quarantine, also if an operator lets it go at this very moment.
        left = [stream for stream in self._poisons if stream not in known or stream in held]
        rows.extend(self._poisons[stream].row(self._key) for stream in left)
        return rows

    def _noting(self, page: Iterable[Any], known: AbstractSet[str], held: set[str]) -> Iterator[Any]:
        for one in page:
            if (stream := self._stream(one)) in known:
                held.add(stream)
            yield one

    def _read(self, page: Iterable[Any]) -> Iterable[Any]:
        return page if self.columns is None else facts.facts(page)

    def _stream(self, one: Any) -> str:
        stream: str = one.originator_id if self.columns is None else one[1]
        return stream

    def write(self, position: int, rows: Sequence[RowWrite | RowsWrite]) -> bool:
        """Write rows and move to this position; False, and nothing written, when another was there first."""
        if not self._views.advance(self._key, self.position, position, rows, durable=False):
            return False
        self.position = position
        self._known = set(self._poisons)
        return True

    # --- what no column takes ----------------------------------------------------------------------------------------
    def _find_poison(self, events: int, upto: int | None) -> bool:
        """Take a page again, event by event, each checked as it is read; whatever fails alone is put aside."""
        self.resume()
        self._plain = None
        try:
            for one in self.read(self.position or 0, events, upto):
                try:
                    moved = self.write(self.last([one]), self.rows([one]))
                except NexusError:
                    raise
                except Exception as alone:  # noqa: BLE001 - see above
                    moved = self._put_aside(one, alone)
                if not moved:
                    return False
            return True
        finally:
            self.resume()

    def _put_aside(self, one: Any, error: Exception) -> bool:
        self.resume()
        self._plain = None
        (read,) = self._read([one])
        poison = Poison.of(read, error)
        self._poisons[poison.originator_id] = poison
        return self.write(poison.position, [poison.row(self._key)])

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
