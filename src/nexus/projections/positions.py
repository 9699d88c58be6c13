"""Of which version the read models in a store are. Standard library only: `nexus sandbox list` asks on Postgres."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from nexus.domain.errors import SchemaMismatch
from nexus.domain.ports import ViewStore
from nexus.projections.inline import INLINE

if TYPE_CHECKING:
    from nexus.projections.catalog import Projection


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


def require_prepared(views: ViewStore) -> None:
    """Refuses, with `SchemaMismatch`, what `nexus.projections.projector.prepare` would mend.

    For a process that lacks the rights to make tables.
    """
    for projection in INLINE:
        found = standing(views, projection)
        if found is not Standing.BUILT:
            what = "is of an older version than this program" if found is Standing.OUTDATED else "was never prepared"
            raise SchemaMismatch(f"The view {projection.name} {what}", projection=projection.name)
