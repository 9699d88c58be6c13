"""A replay of the whole log in three strands: reading ahead, applying, writing behind.

The database works on the page before and the page after while this process is busy with the one between. Read models
that need no more of an event than JSON's own kinds of values are given those: see `plain`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from nexus.domain.errors import NexusError, UnreadableEvent
from nexus.domain.plain import plain
from nexus.domain.ports import EventStore, RowsWrite, RowWrite, Scalar
from nexus.projections.catalog import PlainProjection, Projection, is_plain
from nexus.projections.follower import Follower
from nexus.projections.replay import Poison

_Page = Sequence[Any]
_Apply = Callable[[_Page], Sequence[RowWrite | RowsWrite]]

_POSITION: Final = 0
"""Of a raw event, the first column."""


def run_through(
    store: EventStore,
    projection: Projection,
    follower: Follower,
    page: int,
    progress: Callable[[int], None] | None = None,
) -> int | None:
    """Take the log to its present end. Returns how many events it had; None when another wrote with the same key."""
    try:
        if is_plain(projection):
            raw = _Plain(projection, follower)
            return _pipe(store.raw, raw.rows, lambda event: int(event[_POSITION]), follower, page, progress)
        return _pipe(store.read, follower.rows, lambda event: event.position or 0, follower, page, progress)
    except NexusError:
        raise
    except Exception:  # noqa: BLE001 - a value that no column takes: step by step it is found
        follower.resume()
        return _step_by_step(follower, page, progress)


def _pipe(
    read: Callable[[int, int], _Page],
    apply: _Apply,
    position_of: Callable[[Any], int],
    follower: Follower,
    page: int,
    progress: Callable[[int], None] | None,
) -> int | None:
    events = 0
    written: Future[bool] | None = None
    with ThreadPoolExecutor(1, "nexus-read") as reader, ThreadPoolExecutor(1, "nexus-write") as writer:
        ahead: Future[_Page] | None = reader.submit(read, follower.position or 0, page)
        while ahead is not None and (found := ahead.result()):
            last = position_of(found[-1])
            ahead = reader.submit(read, last, page) if len(found) == page else None
            rows = apply(found)
            if written is not None and not written.result():
                return None
            written = writer.submit(follower.write, last, rows)
            events += len(found)
            if progress is not None:
                progress(last)
    return events if written is None or written.result() else None


def _step_by_step(follower: Follower, page: int, progress: Callable[[int], None] | None) -> int | None:
    events = 0
    while taken := follower.step(page):
        events += taken
        if progress is not None and follower.position is not None:
            progress(follower.position)
        if taken < page:
            break
    return None if taken is None else events


class _Plain:
    """From raw pages to rows, for a follower: what `Follower.rows` does for pages of envelopes."""

    def __init__(self, projection: PlainProjection, follower: Follower) -> None:
        (table,) = projection.tables
        self._projection, self._follower, self._table = projection, follower, table

    def rows(self, page: _Page) -> list[RowWrite | RowsWrite]:
        apply, poisoned = self._projection.plain, self._follower.poisons
        known, skips = set(poisoned), self._follower.skips
        found: dict[tuple[Scalar, ...], dict[str, Scalar]] = {}
        for position, _, stream, _, topic, schema_version, state, at, _, actor, tenant, agent, *_ in page:
            if stream in poisoned or position in skips:
                continue
            try:
                row = apply(topic, plain(topic, schema_version, state), stream, at, (tenant, actor, agent))
            except Exception as error:  # noqa: BLE001 - whatever a read model trips over, the others go on
                reason = error.message if isinstance(error, UnreadableEvent) else f"{type(error).__name__}: {error}"
                poisoned[stream] = Poison(stream, position, topic, schema_version, reason[:500])
                continue
            if row is not None:
                there = found.get(row[0])
                if there is None:
                    found[row[0]] = row[1]
                else:
                    there.update(row[1])
        return [*self._grouped(found), *self._follower.quarantine(set(poisoned) - known)]

    def _grouped(self, found: Mapping[tuple[Scalar, ...], Mapping[str, Scalar]]) -> list[RowsWrite]:
        groups: dict[tuple[str, ...], list[tuple[Scalar, ...]]] = {}
        for key, values in found.items():
            groups.setdefault(tuple(values), []).append((*key, *values.values()))
        name = self._follower.table(self._table.name)
        return [RowsWrite(name, self._table.key, columns, rows) for columns, rows in groups.items()]
