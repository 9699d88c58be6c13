"""What a projection was kept from: aggregates that it had to leave alone, and events that it passes over."""

from __future__ import annotations

from nexus.domain.ports import ViewStore
from nexus.projections.catalog import Projection, key
from nexus.projections.replay import Poison


def quarantined(views: ViewStore, projection: Projection) -> list[Poison]:
    """The aggregates that a projection leaves alone."""
    return quarantined_under(views, key(projection))


def quarantined_under(views: ViewStore, found: str) -> list[Poison]:
    """The same by key."""
    rows = views.query("SELECT * FROM quarantine WHERE projection = :key ORDER BY position", {"key": found})
    return [
        Poison(row["originator_id"], row["position"], row["topic"], row["schema_version"], row["error"]) for row in rows
    ]


def skipped(views: ViewStore, name: str) -> frozenset[int]:
    """Positions of the events that an operator had this projection pass over."""
    rows = views.query("SELECT position FROM skipped WHERE projection = :name", {"name": name})
    return frozenset(row["position"] for row in rows)
