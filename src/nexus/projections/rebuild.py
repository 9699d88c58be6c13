"""Building a read model anew beside the one that is in use, then putting it in its place in one transaction.

Readers and writers go on meanwhile. An inline model's live rows are written by appends, not by this; the last step
runs while nothing is appended and takes whatever they wrote in the meantime from the log, so nothing is missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

from nexus.domain.errors import Conflict, NexusError
from nexus.domain.ports import EventStore, RowsWrite, RowWrite, Table
from nexus.projections.catalog import Projection, is_following, is_plain, key
from nexus.projections.filling import fill
from nexus.projections.follower import PAGE, Follower
from nexus.projections.held import quarantined_under, skipped
from nexus.projections.positions import live_keys
from nexus.projections.tables import SKIPPED

_PAGE: Final = 5000
"""Events per transaction: nobody waits for one of them to be seen."""
_READ_PAGE: Final = 250
"""Events that are read at once of the whole log. While they are worked on the server sends the next, as far as the
socket takes it, some 200 kB with what the kernel adds; then it waits."""
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
    store: EventStore, projection: Projection, progress: Callable[[int], None] | None = None, *, page: int | None = None
) -> Rebuilt:
    """Replays the whole log. `progress` is told the position now and then.

    Raises `RebuildInProgress` when another process is at it or comes in between; the live tables are then untouched.
    """
    built = f"{key(projection)}:aside"
    tables = {table.name: f"{table.name}__aside" for table in projection.tables}
    aside = [replace(table, name=tables[table.name]) for table in projection.tables]
    _wait_for_another(store, projection, built)
    # Should another one begin at this very moment, both write the same tables, each page of the log once.
    events, goes_on = _filled(store, projection, built, aside, page, progress)
    follower = Follower(store, projection, written_as=built, tables=tables, honours_skips=False)
    if goes_on:
        if not is_following(projection):
            events += _replayed(store, projection, follower, page or _PAGE, progress)
        events += _followed(projection, follower, page or _PAGE, progress)
        store.views.complete(aside)
    position = _finish(store, projection, follower, built, tables)
    if position is None:
        raise _overtaken(projection)
    return Rebuilt(projection.name, projection.version, position, events, len(follower.poisoned))


def _overtaken(projection: Projection) -> RebuildInProgress:
    return RebuildInProgress(f"Another process began to rebuild {projection.name}", projection=projection.name)


def _wait_for_another(store: EventStore, projection: Projection, built: str) -> None:
    seen = store.views.position(built)
    if seen is not None:
        deadline = time.monotonic() + ABANDONED
        while time.monotonic() < deadline:
            time.sleep(0.05)
            if store.views.position(built) != seen:
                raise RebuildInProgress(f"{projection.name} is being rebuilt", projection=projection.name)


def _filled(
    store: EventStore,
    projection: Projection,
    built: str,
    aside: Sequence[Table],
    page: int | None,
    progress: Callable[[int], None] | None,
) -> tuple[int, bool]:
    """Begin the new tables, and fill that of a plain read model. How many events it took, and whether more are left."""
    if is_plain(projection):
        _begin(store, built, aside, keyed=False)
        try:
            events, goes_on = fill(store, projection, built, aside[0], page or _READ_PAGE, progress)
            if events is None:
                raise _overtaken(projection)
            return events, goes_on
        except NexusError:
            raise
        except Exception:  # noqa: BLE001 - a value that no column takes, or a row that was there: found step by step
            _begin(store, built, aside, keyed=True)
    else:
        _begin(store, built, aside, keyed=True)
    return 0, True


def _begin(store: EventStore, built: str, aside: Sequence[Table], *, keyed: bool) -> None:
    store.views.begin(aside, built, indexed=False, keyed=keyed)
    left = [poison.gone(built) for poison in quarantined_under(store.views, built)]
    if left:  # of a rebuild that never came to its end: everything is tried again
        store.views.advance(built, 0, 0, left)


def _replayed(
    store: EventStore, projection: Projection, follower: Follower, page: int, progress: Callable[[int], None] | None
) -> int:
    """Take the whole log, while the database makes the next pages. Returns how many events it had.

    It ends early where a row fits no column: whose that is, `_followed` finds out.
    """
    read = taken = last = 0

    def some() -> Iterator[Sequence[Any]]:
        nonlocal read, last
        for found in islice(log, max(page // _READ_PAGE, 1)):
            read, last = read + len(found), found[-1][0]
            yield from found

    with closing(store.pages(min(page, _READ_PAGE), columns=follower.columns or ())) as log:
        while True:
            try:
                rows = follower.rows(some())
                if read == taken:
                    return taken
                moved = follower.write(last, rows)
            except NexusError:
                raise
            except Exception:  # noqa: BLE001 - see above
                follower.resume()
                return taken
            if not moved:
                raise _overtaken(projection)
            taken = read
            if progress is not None:
                progress(last)


def _followed(projection: Projection, follower: Follower, page: int, progress: Callable[[int], None] | None) -> int:
    """Take the log to its present end. Returns how many events that were."""
    events = 0
    while taken := follower.step(page):
        events += taken
        if progress is not None and follower.position is not None:
            progress(follower.position)
        if taken < page:
            break
    if taken is None:
        raise _overtaken(projection)
    return events


def _finish(
    store: EventStore, projection: Projection, follower: Follower, built: str, tables: Mapping[str, str]
) -> int | None:
    def rest(position: int) -> tuple[int, list[RowWrite | RowsWrite]]:
        rows: list[RowWrite | RowsWrite] = []
        while found := follower.read(position, PAGE):
            rows.extend(follower.rows(found))
            position = follower.last(found)
        return position, [*rows, *_quarantine_moved(store, projection, follower, built)]

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
        poison.gone(old)
        for old in {*live_keys(store.views, projection.name), key(projection)}
        for poison in quarantined_under(store.views, old)
    ]
    aside = [poison.gone(built) for poison in follower.poisoned]
    return [*skips, *gone, *aside, *(poison.row(key(projection)) for poison in follower.poisoned)]
