"""The read models there are. A new one that follows the log (audit, usage, …) is a class and an entry here.

Inline ones (`nexus.projections.inline`) are written with the append; those listed here as following read the log by
position, in batches, and are caught up when they are read or by a worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Protocol, TypeGuard

from nexus.domain.errors import InvalidInput
from nexus.domain.events import Envelope
from nexus.domain.ports import RowWrite, Table
from nexus.projections.columns import RowsOf
from nexus.projections.executions import Executions
from nexus.projections.inline import INLINE, InlineProjection


class FollowingProjection(Protocol):
    """A read model that is written from the log, event by event, in the log's order."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Goes up with every change of its tables or of what it writes: it is then rebuilt."""
    tables: ClassVar[tuple[Table, ...]]

    def apply(self, envelope: Envelope) -> Sequence[RowWrite]:
        """What this event changes. Sees every event once; an exception quarantines the event's aggregate."""
        ...


class PlainProjection(FollowingProjection, Protocol):
    """One of a single table that reads neither times nor enumerations out of events: several times as fast."""

    plain: ClassVar[Mapping[str, tuple[tuple[str, ...], RowsOf]]]
    """By topic, the columns that its events write and what `apply` writes there; other events write nothing."""
    begins: ClassVar[frozenset[str]]
    """Topics whose events write a row that was not there."""
    ends: ClassVar[frozenset[str]]
    """Topics whose events are the last to write their row."""


Projection = InlineProjection | FollowingProjection

FOLLOWING: Final[tuple[FollowingProjection, ...]] = (Executions(),)

ALL: Final[tuple[Projection, ...]] = INLINE + FOLLOWING

BY_NAME: Final[dict[str, Projection]] = {projection.name: projection for projection in ALL}


def named(name: str) -> Projection:
    """Raises `InvalidInput` that lists the known names."""
    try:
        return BY_NAME[name]
    except KeyError:
        raise InvalidInput(
            "There is no such projection", hint=f"Projections: {', '.join(sorted(BY_NAME))}.", field="projection"
        ) from None


def is_following(projection: Projection) -> TypeGuard[FollowingProjection]:
    """Whether it follows the log, rather than being written with the append."""
    return hasattr(projection, "apply")


def is_plain(projection: Projection) -> TypeGuard[PlainProjection]:
    """Whether a replay may give it payloads as JSON has them."""
    return hasattr(projection, "plain")


def key(projection: Projection) -> str:
    """Under which name a store keeps the position of this version of a projection."""
    return f"{projection.name}:{projection.version}"
