"""The sealer: follows the log and writes a seal for every event, away from the writers.

A page of seals, the chain's head after it and the sealer's position are one transaction, so two sealers at once write
each page once. Seals prove nothing against somebody who can rewrite them too: signed checkpoints, kept elsewhere, do.
"""

from __future__ import annotations

from typing import Final

from nexus.domain.ports import EventStore, RowWrite
from nexus.domain.values import to_text
from nexus.engine.audit.canonical import GENESIS, chained, leaf
from nexus.projections.tables import SEAL_HEADS, SEALS

PROJECTION: Final = "seal:1"
_PAGE: Final = 2000


class Sealer:
    """Seals what has been appended since the last time."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        store.views.create((SEALS, SEAL_HEADS))

    def catch_up(self, upto: int | None = None) -> int:
        """Seal everything there is by now; returns how many events were sealed by this call."""
        sealed = 0
        while True:
            taken = self._page(upto)
            if taken == 0:
                return sealed
            sealed += max(taken, 0)

    def _page(self, upto: int | None) -> int:
        """Seal one page: its number of events, 0 when there is none, -1 when another sealer was first."""
        views = self._store.views
        position = views.position(PROJECTION)
        events = self._store.raw(position or 0, _PAGE, upto=upto)
        if not events:
            return 0
        head = head_at(self._store, position or 0)
        leaves = [(event[0], leaf(event)) for event in events]
        last = leaves[-1][0]
        rows = [
            RowWrite(SEALS.name, {"position": place}, {"event_id": event[1], "leaf": digest.hex()})
            for event, (place, digest) in zip(events, leaves, strict=True)
        ]
        count = head[1] + len(events)
        rows.append(
            RowWrite(
                SEAL_HEADS.name,
                {"position": last},
                {"chain": chained(head[0], leaves).hex(), "count": count, "sealed_at": to_text(self._store.now())},
            )
        )
        return len(events) if views.advance(PROJECTION, position, last, rows) else -1


def head_at(store: EventStore, position: int) -> tuple[bytes, int]:
    """The sealed chain's head and count at a position where a page of seals ended."""
    if position == 0:
        return GENESIS, 0
    found = store.views.query("SELECT chain, count FROM seal_heads WHERE position = :at", {"at": position})
    return bytes.fromhex(found[0]["chain"]), int(found[0]["count"])
