"""Members' streams: loading, and recording what was decided. The only writer of pool events."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from uuid import uuid4

from nexus.domain import ids, pool
from nexus.domain import pool_events as pe
from nexus.domain.errors import ConcurrentModification, StreamConflict
from nexus.domain.event import Event
from nexus.domain.events import Envelope
from nexus.domain.pool import Member
from nexus.domain.ports import RowWrite
from nexus.domain.provider import NetworkPolicy, Template
from nexus.domain.warm_pool import Kind
from nexus.engine.streams import RETRIES, Cause, Streams
from nexus.projections import inline


class Members:
    """Thread-safe. A member's stream holds a handful of events, so nothing is kept."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._store = streams.store

    def load(self, member_id: str) -> Member | None:
        return pool.fold(None, self._store.history(pool.stream_id(member_id)))

    def get(self, member_id: str) -> Member:
        member = self.load(member_id)
        if member is None:
            raise ValueError(f"there is no pool member {member_id}")
        return member

    def request(
        self,
        provider: str,
        template: Template,
        slot: int,
        kind: Kind,
        network: NetworkPolicy,
        lifetime: timedelta,
        deadline: timedelta,
        holder: str,
        cause: Cause,
    ) -> Member | None:
        """Claim the slot and record the intent, in one append; None when the slot is another's."""
        stream = pool.slot_stream(provider, kind.place, template.name, slot)
        last = self._store.last(stream)
        if last is not None and isinstance(last.event, pe.PoolSlotClaimed):
            before = self.load(last.event.member_id)
            if before is not None and before.occupies:
                return None
        now = self._store.now()
        member_id = ids.member_id(uuid4())
        wanted = pe.PoolMemberRequested(
            member_id=member_id,
            provider=provider,
            place=kind.place,
            template=template.name,
            slot=slot,
            kind=kind.digest,
            network=network,
            limits=asdict(template.limits),
            expires_at=now + lifetime,
            deadline=now + deadline,
            holder=holder,
        )
        version = 1 if last is None else last.originator_version + 1
        claim = self._streams.envelope(stream, version, pe.PoolSlotClaimed(member_id=member_id), cause, now)
        own = self._streams.envelope(pool.stream_id(member_id), 1, wanted, cause, now)
        member = pool.fold(None, [own])
        if member is None:
            raise ValueError("unreachable: a member begins with an event")
        try:
            self._store.append([own, claim], rows=inline.member_rows(member))
        except StreamConflict:
            return None
        return member

    def taking(self, member: Member, sandbox_id: str, cause: Cause, now: datetime) -> tuple[Envelope, list[RowWrite]]:
        """What an append has to hold for this member to become the sandbox that it requests."""
        (event,) = pool.taken(member, sandbox_id)
        return self._next(member, event, cause, now)

    def record(
        self,
        member_id: str,
        decide: Callable[[Member], Sequence[Event]],
        cause: Cause,
        *,
        expected: int | None = None,
    ) -> Member:
        """Load, decide, append; decide anew when another writer was first. `expected` refuses any other version."""
        for attempt in range(RETRIES):
            member = self.get(member_id)
            if expected is not None and member.version != expected:
                raise StreamConflict(member_id=member_id, version=member.version)
            events = decide(member)
            if not events:
                return member
            (event,) = events
            envelope, rows = self._next(member, event, cause, self._store.now())
            try:
                self._store.append([envelope], rows=rows)
            except StreamConflict:
                if expected is not None:
                    raise
                self._streams.back_off(attempt)
                continue
            after = pool.fold(member, [envelope])
            if after is None:
                raise ValueError("unreachable: a member folds to a member")
            return after
        raise ConcurrentModification(member_id=member_id)

    def _next(self, member: Member, event: Event, cause: Cause, now: datetime) -> tuple[Envelope, list[RowWrite]]:
        version = member.version + 1
        envelope = self._streams.envelope(pool.stream_id(member.member_id), version, event, cause, now)
        after = pool.fold(copy.copy(member), [envelope])
        if after is None:
            raise ValueError("unreachable: a member folds to a member")
        return envelope, inline.member_rows(after, member.version)
