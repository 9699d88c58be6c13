"""Where projections stand, as a store keeps it: their positions, and the aggregates they had to leave alone."""

from __future__ import annotations

from enum import Enum

from nexus.domain.errors import SchemaMismatch
from nexus.domain.ports import ViewStore
from nexus.projections.catalog import Projection, key
from nexus.projections.replay import Poison


class Standing(Enum):
    """How the tables of a projection relate to the program."""

    BUILT = "built"
    """They are of the program's version."""
    OUTDATED = "outdated"
    """They are of an older version and have to be rebuilt."""
    FRESH = "fresh"
    """Nothing was ever written into them."""


def positions(views: ViewStore, name: str) -> dict[str, int]:
    """All positions of a projection: of its live tables (`name:version`) and of what is built aside."""
    rows = views.query("SELECT projection, position FROM projection_positions")
    return {row["projection"]: row["position"] for row in rows if row["projection"].partition(":")[0] == name}


def live_keys(views: ViewStore, name: str) -> list[str]:
    """The keys under which any version of a projection's live tables stands: at most one, but for a crash."""
    return [found for found in positions(views, name) if found.count(":") == 1]


def standing(views: ViewStore, projection: Projection) -> Standing:
    """Raises `SchemaMismatch` for tables that a newer program wrote."""
    versions = {int(found.partition(":")[2]) for found in live_keys(views, projection.name)}
    newer = [version for version in versions if version > projection.version]
    if newer:
        raise SchemaMismatch(
            f"The view {projection.name} has version {max(newer)}; this program knows up to {projection.version}",
            hint="Upgrade Nexus to the version that last used this store, or newer.",
            projection=projection.name,
        )
    if projection.version in versions:
        return Standing.BUILT
    return Standing.OUTDATED if versions else Standing.FRESH


def require_built(views: ViewStore, projection: Projection) -> None:
    """Raises `SchemaMismatch` for tables that another version of the program wrote, or that nobody prepared."""
    found = standing(views, projection)
    if found is not Standing.BUILT:
        what = "of an older version" if found is Standing.OUTDATED else "never prepared"
        raise SchemaMismatch(f"The view {projection.name} is {what}", projection=projection.name)


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
