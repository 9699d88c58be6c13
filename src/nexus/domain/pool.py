"""The warm pool's aggregates: its members, and its slots, which bound it.

A member is made before anybody asks and becomes at most one sandbox. A slot's stream is a chain of claims, as a name's
is (`nexus.domain.names`): a claim stands until its member is taken or removed, which is final, so it is safe to read
that first and then claim at the version read. Two that fill the pool at once meet there: no pool outgrows its slots.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

from nexus.domain import pool_events as pe
from nexus.domain.errors import Conflict
from nexus.domain.event import Event, Json
from nexus.domain.events import Envelope, Fact
from nexus.domain.validation import said
from nexus.domain.values import MemberState, RetireReason

_SLOTS: Final = UUID("6f0e2f5e-0d9b-4a4f-9f0a-7a5f3d1c8e21")
_PREFIX: Final = "pool-"
DETAIL_LIMIT: Final = 500
"""Characters that an event keeps of what went wrong."""


class NotReady(Conflict):
    """The member is on another way already."""

    code = "pool_member_not_ready"


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What an installation wants to be kept ready."""

    provider: str
    sizes: Mapping[str, int]
    """Template name → members to keep."""
    total: int
    """The most that there may be of all templates together; the first templates get theirs first."""
    lifetime: int = 3600
    """Seconds that a member waits to be taken before it is replaced; on providers with deadlines it ends then."""

    def allotted(self) -> dict[str, int]:
        """Template name → slots that it really has."""
        left, found = self.total, {}
        for name, size in self.sizes.items():
            found[name] = min(size, left)
            left -= found[name]
        return found


@dataclass(slots=True)
class Member:
    """What the events say about one member. Only `fold` changes it."""

    member_id: str
    provider: str
    place: str
    template: str
    slot: int
    kind: str
    network: str
    limits: dict[str, int | float | None]
    requested_at: datetime
    expires_at: datetime
    deadline: datetime
    holder: str
    version: int = 1
    state: MemberState = MemberState.REQUESTED
    ref: Json | None = None
    ready_at: datetime | None = None
    sandbox_id: str | None = None
    reason: RetireReason | None = None
    detail: str = ""

    @property
    def occupies(self) -> bool:
        """Whether it is, or may be, a resource of the pool."""
        return self.state in (MemberState.REQUESTED, MemberState.READY, MemberState.RETIRED)


def stream_id(member_id: str) -> str:
    """The event stream of a member: `pm_<hex>` lives in `pool-<hex>`."""
    return _PREFIX + member_id.removeprefix("pm_")


def is_member_stream(stream: str) -> bool:
    return stream.startswith(_PREFIX)


def slot_stream(provider: str, place: str, template: str, number: int) -> str:
    """The stream of one place for members of one template."""
    return "slot-" + uuid5(_SLOTS, json.dumps([provider, place, template, number])).hex


# --- decisions -----------------------------------------------------------------------------------------------------
def made(member: Member, ref: Json) -> list[Event]:
    """Raises `NotReady` when it was given up meanwhile: what was made has to go."""
    if member.state is not MemberState.REQUESTED:
        raise NotReady(f"Pool member {member.member_id} is {member.state}: what was made came too late")
    return [pe.PoolMemberReady(ref=ref)]


def taken(member: Member, sandbox_id: str) -> list[Event]:
    """Raises `NotReady` for one that is not, or is no longer, there to be taken."""
    if member.state is not MemberState.READY:
        raise NotReady(f"Pool member {member.member_id} is {member.state}")
    return [pe.PoolMemberTaken(sandbox_id=sandbox_id)]


def retired(member: Member, reason: RetireReason, detail: str = "") -> list[Event]:
    """Nothing for one that is retired already. One that was taken is retired only when it did not become a sandbox."""
    if member.state in (MemberState.RETIRED, MemberState.REMOVED):
        return []
    if member.state is MemberState.TAKEN and reason not in (RetireReason.UNFIT, RetireReason.STRANDED):
        raise NotReady(f"Pool member {member.member_id} belongs to {member.sandbox_id}")
    return [pe.PoolMemberRetired(reason=reason, detail=said(detail, DETAIL_LIMIT))]


def removed(member: Member) -> list[Event]:
    if member.state is MemberState.REMOVED:
        return []
    if member.state is not MemberState.RETIRED:
        raise NotReady(f"Pool member {member.member_id} is {member.state}, not retired")
    return [pe.PoolMemberRemoved()]


# --- the fold ------------------------------------------------------------------------------------------------------
def _ready(m: Member, e: pe.PoolMemberReady, at: datetime) -> None:
    m.state, m.ref, m.ready_at = MemberState.READY, e.ref, at


def _taken(m: Member, e: pe.PoolMemberTaken, _at: datetime) -> None:
    m.state, m.sandbox_id = MemberState.TAKEN, e.sandbox_id


def _retired(m: Member, e: pe.PoolMemberRetired, _at: datetime) -> None:
    m.state, m.reason, m.detail = MemberState.RETIRED, e.reason, e.detail


def _removed(m: Member, _e: pe.PoolMemberRemoved, _at: datetime) -> None:
    m.state = MemberState.REMOVED


APPLY: Final[dict[type[Event], Callable[[Member, Any, datetime], None]]] = {
    pe.PoolMemberReady: _ready,
    pe.PoolMemberTaken: _taken,
    pe.PoolMemberRetired: _retired,
    pe.PoolMemberRemoved: _removed,
}


def fold(member: Member | None, envelopes: Iterable[Envelope | Fact]) -> Member | None:
    """The member after these envelopes of its stream. The one that comes in is changed: pass one that you own."""
    for envelope in envelopes:
        event = envelope.event
        if member is None:
            if not isinstance(event, pe.PoolMemberRequested):
                raise ValueError(f"a pool member begins with {pe.PoolMemberRequested.TOPIC}, not {event.TOPIC}")
            facts = {name: getattr(event, name) for name in type(event).model_fields}
            member = Member(**facts, requested_at=envelope.occurred_at)
        else:
            APPLY[type(event)](member, event, envelope.occurred_at)
        member.version = envelope.originator_version
    return member
