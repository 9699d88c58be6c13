"""What the storm of writers does, in processes of their own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from nexus.domain.errors import StreamConflict
from nexus.domain.ports import EventStore
from nexus.testing.store_contract.base import OpenStore, envelope, new_stream, positions_of


def write(open_store: OpenStore, threads: int, appends: int, shared: str) -> list[list[int]]:
    """Appends from several threads over one store; returns each append's positions as they were acknowledged."""
    store = open_store()
    try:
        with ThreadPoolExecutor(threads) as pool:
            runs = [pool.submit(_write, store, appends, shared) for _ in range(threads)]
            return [positions for run in runs for positions in run.result()]
    finally:
        store.close()


def _write(store: EventStore, appends: int, shared: str) -> list[list[int]]:
    own, version = new_stream(), 0
    acknowledged = []
    for turn in range(appends):
        size = 1 + turn % 3
        batch = [envelope(own, version + number) for number in range(1, size + 1)]
        version += size
        if turn % 5 == 0:
            # A stream that all writers want: conflicts leave gaps in the positions, and no holes for a reader.
            last = store.last(shared)
            batch.append(envelope(shared, (last.originator_version if last else 0) + 1))
            try:
                acknowledged.append(positions_of(store.append(batch)))
                continue
            except StreamConflict:
                batch.pop()
        acknowledged.append(positions_of(store.append(batch)))
    return acknowledged
