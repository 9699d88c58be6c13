"""The facts of the warm pool: resources that are made before anybody asks, and what becomes of each.

A member's stream is short: requested, ready, then taken by a sandbox, or retired and removed. They belong to the
registry in `nexus.domain.events`, as all events do.
"""

from __future__ import annotations

from typing import ClassVar, Final

from pydantic import AwareDatetime

from nexus.domain.event import Event, Json
from nexus.domain.values import RetireReason


class PoolMemberRequested(Event):
    """The intent to make one: the first event of every member."""

    TOPIC: ClassVar = "pool.member_requested"
    member_id: str
    provider: str
    place: str
    template: str
    slot: int
    kind: str
    network: str
    limits: dict[str, int | float | None]
    expires_at: AwareDatetime
    deadline: AwareDatetime
    holder: str


class PoolMemberReady(Event):
    """Its resource is there and waits."""

    TOPIC: ClassVar = "pool.member_ready"
    ref: Json


class PoolMemberTaken(Event):
    """It becomes this sandbox: recorded in the append that requests the sandbox, before its resource is touched."""

    TOPIC: ClassVar = "pool.member_taken"
    sandbox_id: str


class PoolMemberRetired(Event):
    """The intent to remove it: no sandbox is made of it from here on."""

    TOPIC: ClassVar = "pool.member_retired"
    reason: RetireReason
    detail: str = ""


class PoolMemberRemoved(Event):
    """Its resource is gone."""

    TOPIC: ClassVar = "pool.member_removed"


class PoolSlotClaimed(Event):
    """A place of the pool now belongs to this member; it is free again once that one is taken or removed."""

    TOPIC: ClassVar = "pool.slot_claimed"
    member_id: str


POOL_EVENTS: Final = (
    PoolMemberRequested,
    PoolMemberReady,
    PoolMemberTaken,
    PoolMemberRetired,
    PoolMemberRemoved,
    PoolSlotClaimed,
)
