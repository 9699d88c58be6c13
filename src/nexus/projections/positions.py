"""Of which version the read models in a store are. Standard library only: `nexus sandbox list` asks on Postgres."""

from __future__ import annotations

from collections.abc import Iterable
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
    return {found: position for found, position in _stored(views).items() if found.partition(":")[0] == name}


def _stored(views: ViewStore) -> dict[str, int]:
    rows = views.query("SELECT projection, position FROM projection_positions")
    return {row["projection"]: row["position"] for row in rows}


def live_keys(views: ViewStore, name: str) -> list[str]:
    """The keys under which any version of a projection's live tables stands: at most one, but for a crash."""
    return _live(_stored(views), name)


def _live(stored: Iterable[str], name: str) -> list[str]:
    return [found for found in stored if found.partition(":")[0] == name and found.count(":") == 1]


def standing(views: ViewStore, projection: Projection) -> Standing:
    """Raises `SchemaMismatch` for tables that a newer program wrote."""
    return _standing(_stored(views), projection)


def _standing(stored: Iterable[str], projection: Projection) -> Standing:
    versions = {int(found.partition(":")[2]) for found in _live(stored, projection.name)}
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

    For a process that lacks the rights to make tables. One question for all: every command begins with it.
    """
    stored = _stored(views)
    for projection in INLINE:
        found = _standing(stored, projection)
        if found is not Standing.BUILT:
            what = "is of an older version than this program" if found is Standing.OUTDATED else "was never prepared"
            raise SchemaMismatch(f"The view {projection.name} {what}", projection=projection.name)
