"""The sealer: follows the log and writes a seal for every event, away from the writers.

A page of seals is one row, with the chain's head after it; this and the sealer's position are one transaction, so two
sealers at once write each page once. Seals prove nothing against somebody who can rewrite them too: signed checkpoints,
kept elsewhere, do.
"""

from __future__ import annotations

import json
from typing import Final

from nexus.domain.ports import EventStore, RowWrite
from nexus.domain.values import to_text
from nexus.engine.audit.canonical import GENESIS, chained, leaf
from nexus.projections.tables import SEALS

PROJECTION: Final = "seal:1"
_PAGE: Final = 2000


class Sealer:
    """Seals what has been appended since the last time."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        store.views.create((SEALS,))

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
        head, count = head_at(self._store, position or 0)
        positions = [event[0] for event in events]
        leaves = [leaf(event) for event in events]
        row = RowWrite(
            SEALS.name,
            {"position": positions[-1]},
            {
                "count": count + len(events),
                "positions": as_json(positions),
                "event_ids": as_json([event[1] for event in events]),
                "leaves": b"".join(leaves).hex(),
                "chain": chained(head, [b"%d" % position for position in positions], leaves).hex(),
                "sealed_at": to_text(self._store.now()),
            },
        )
        return len(events) if views.advance(PROJECTION, position, positions[-1], [row]) else -1


def as_json(values: list[int] | list[str]) -> str:
    """Positions or ids as a page of seals has them."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def head_at(store: EventStore, position: int) -> tuple[bytes, int]:
    """The sealed chain's head and count at a position where a page of seals ended."""
    if position == 0:
        return GENESIS, 0
    found = store.views.query("SELECT chain, count FROM seals WHERE position = :at", {"at": position})
    return bytes.fromhex(found[0]["chain"]), int(found[0]["count"])
