"""Building a read model anew beside the one that is in use, then putting it in its place in one transaction.

Readers and writers go on meanwhile. An inline model's live rows are written by appends, not by this; the last step
runs while nothing is appended and takes whatever they wrote in the meantime from the log, so nothing is missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from nexus.domain.errors import Conflict
from nexus.domain.ports import EventStore, RowsWrite, RowWrite
from nexus.projections.catalog import Projection, key
from nexus.projections.follower import PAGE, Follower
from nexus.projections.pipeline import run_through
from nexus.projections.positions import live_keys, quarantined_under, skipped
from nexus.projections.tables import QUARANTINE, SKIPPED

_PAGE: Final = 5000
"""Events per transaction: nobody waits for one of them to be seen, and each costs a flush to disk."""
ABANDONED: Final = 5.0
"""Seconds without any progress after which another's rebuild counts as abandoned."""


class RebuildInProgress(Conflict):
    """Another process is rebuilding this view."""

    code = "rebuild_in_progress"
    hint = "Wait until it is done."


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did."""

    name: str
    version: int
    position: int
    events: int
    quarantined: int


def rebuild(
    store: EventStore, projection: Projection, progress: Callable[[int], None] | None = None, *, page: int = _PAGE
) -> Rebuilt:
    """Replays the whole log. `progress` is told the position now and then.

    Raises `RebuildInProgress` when another process is at it or comes in between; the live tables are then untouched.
    """
    built = f"{key(projection)}:aside"
    tables = {table.name: f"{table.name}__aside" for table in projection.tables}
    _start(store, projection, built, tables)
    follower = Follower(store, projection, written_as=built, tables=tables, honours_skips=False)
    events = run_through(follower, page, progress)
    position = None if events is None else _finish(store, projection, follower, built, tables)
    if events is None or position is None:
        raise RebuildInProgress(f"Another process began to rebuild {projection.name}", projection=projection.name)
    return Rebuilt(projection.name, projection.version, position, events, len(follower.poisoned))


def _start(store: EventStore, projection: Projection, built: str, tables: Mapping[str, str]) -> None:
    seen = store.views.position(built)
    if seen is not None:
        deadline = time.monotonic() + ABANDONED
        while time.monotonic() < deadline:
            time.sleep(0.05)
            if store.views.position(built) != seen:
                raise RebuildInProgress(f"{projection.name} is being rebuilt", projection=projection.name)
    # Should another one begin at this very moment, both fill the same tables, each page of the log once.
    store.views.begin([replace(table, name=tables[table.name]) for table in projection.tables], built, bare=True)


def _finish(
    store: EventStore, projection: Projection, follower: Follower, built: str, tables: Mapping[str, str]
) -> int | None:
    def rest(position: int) -> tuple[int, list[RowWrite | RowsWrite]]:
        rows: list[RowWrite | RowsWrite] = []
        while found := follower.read(position, PAGE):
            rows.extend(follower.rows(found))
            position = follower.last(found)
        return position, [*rows, *_quarantine_moved(store, projection, follower, built)]

    store.views.complete([replace(table, name=tables[table.name]) for table in projection.tables])
    return store.views.swap(
        {aside: live for live, aside in tables.items()},
        built=built,
        expected=follower.position or 0,
        projection=key(projection),
        forget=live_keys(store.views, projection.name),
        finish=rest,
    )


def _quarantine_moved(store: EventStore, projection: Projection, follower: Follower, built: str) -> list[RowWrite]:
    """Old quarantines and skips end with the old tables; those met while rebuilding hold for the new ones."""
    skips = [
        RowWrite(SKIPPED.name, {"projection": projection.name, "position": position}, None)
        for position in sorted(skipped(store.views, projection.name))
    ]
    gone = [
        RowWrite(QUARANTINE.name, {"projection": old, "originator_id": poison.originator_id}, None)
        for old in {*live_keys(store.views, projection.name), key(projection)}
        for poison in quarantined_under(store.views, old)
    ]
    aside = [
        RowWrite(QUARANTINE.name, {"projection": built, "originator_id": poison.originator_id}, None)
        for poison in follower.poisoned
    ]
    return [*skips, *gone, *aside, *(poison.row(key(projection)) for poison in follower.poisoned)]
