"""Faults planted into the warm pool; see `tests.simulation.planted`."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

from nexus.domain import pool as decisions
from nexus.domain import pool_events as pe
from nexus.domain.event import Event, Json
from nexus.domain.pool import Member
from nexus.engine.pool.comparing import Comparing
from nexus.engine.pool.ending import Ending
from nexus.engine.pool.pool import Pool
from tests.simulation.planted import fault


@fault
def stranded_members_are_forgotten() -> Iterator[None]:
    with patch.object(Comparing, "_judge", lambda *_: None):
        yield


@fault
def members_that_vanished_stay_ready() -> Iterator[None]:
    with patch.object(Comparing, "_ghost", lambda *_: None):
        yield


@fault
def nobody_settles_the_pool() -> Iterator[None]:
    with patch.object(Pool, "settle", lambda *_: None):
        yield


@fault
def slots_bound_nothing() -> Iterator[None]:
    with patch.object(Member, "occupies", property(lambda _: False)):
        yield


@fault
def members_are_removed_without_an_intent() -> Iterator[None]:
    with patch.object(Ending, "retire", lambda *_, **__: None):
        yield


@fault
def a_member_that_was_given_up_becomes_ready() -> Iterator[None]:
    def always(_member: Member, ref: Json) -> list[Event]:
        return [pe.PoolMemberReady(ref=ref)]

    with patch.object(decisions, "made", always):
        yield


@fault
def a_member_is_given_to_several() -> Iterator[None]:
    def always(member: Member, sandbox_id: str) -> list[Event]:
        return [pe.PoolMemberTaken(sandbox_id=sandbox_id)]

    def pick(self: Pool, provider: str, *_: object) -> Member | None:
        known = [e.event.member_id for e in self._store.read(0) if isinstance(e.event, pe.PoolMemberRequested)]
        found = [member for key in known if (member := self.members.load(key)) is not None and member.ref is not None]
        return found[0] if found else None

    with patch.object(decisions, "taken", always), patch.object(Pool, "pick", pick):
        yield
