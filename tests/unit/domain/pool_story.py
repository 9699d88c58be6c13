"""Events of the warm pool for tests, as `tests.unit.domain.story` has them for sandboxes."""

from __future__ import annotations

from collections.abc import Sequence

from nexus.domain import events as ev
from nexus.domain import pool
from nexus.domain import pool_events as pe
from nexus.domain.pool import Member
from nexus.domain.values import RetireReason
from tests.unit.domain.story import REF, at, envelope

MEMBER = "pm_" + "7" * 32
SANDBOX = "sb_" + "5" * 32


def requested() -> pe.PoolMemberRequested:
    return pe.PoolMemberRequested(
        member_id=MEMBER,
        provider="fake",
        place="cloud",
        template="default",
        slot=0,
        kind="k1",
        network="full",
        limits={"memory_mb": 1024},
        expires_at=at(60),
        deadline=at(3),
        holder="worker-1",
    )


def ready() -> pe.PoolMemberReady:
    return pe.PoolMemberReady(ref=REF)


def taken(sandbox_id: str = SANDBOX) -> pe.PoolMemberTaken:
    return pe.PoolMemberTaken(sandbox_id=sandbox_id)


def retired(reason: RetireReason = RetireReason.LOST, detail: str = "") -> pe.PoolMemberRetired:
    return pe.PoolMemberRetired(reason=reason, detail=detail)


def given(*events: ev.Event) -> Member:
    """The member after these events."""
    member = pool.fold(None, envelopes(events))
    assert member is not None
    return member


def envelopes(events: Sequence[ev.Event]) -> list[ev.Envelope]:
    return [envelope(event, number, at(number)) for number, event in enumerate(events, start=1)]
