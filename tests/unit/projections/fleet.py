"""A few sandboxes in a real store, whose stories a test tells event by event."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from nexus.domain import events as ev
from nexus.domain import pool
from nexus.domain.ports import EventStore
from nexus.domain.sandbox import Sandbox, fold, stream_id
from nexus.domain.values import Principal
from nexus.projections import inline
from nexus.testing.store_contract.base import everything, positions_of
from tests.unit.domain import pool_story
from tests.unit.domain.story import START, requested

ADA, BOB = Principal("ada"), Principal("bob")


def new_id() -> str:
    return f"sb_{uuid.uuid4().hex}"


class Fleet:
    """Appends as the engine does: events and the inline rows of the state that they lead to."""

    def __init__(self, store: EventStore) -> None:
        self.store = store
        self.states: dict[str, Sandbox] = {}
        self.clock = START

    def create(self, name: str = "data-analysis", *, sandbox_id: str = "", **fields: Any) -> str:
        """A sandbox that is being created; returns its id. Each is a second younger than the one before."""
        sandbox_id = sandbox_id or new_id()
        self.clock += timedelta(seconds=1)
        first = requested().model_copy(
            update={
                "sandbox_id": sandbox_id,
                "name": name,
                "user_id": "ada",
                "tenant_id": "default",
                "labels": {},
                **fields,
            }
        )
        self.tell(sandbox_id, first)
        return sandbox_id

    def tell(self, sandbox_id: str, *events: ev.Event, at: datetime | None = None) -> Sandbox:
        """Append these events; returns the state that they lead to."""
        before = self.states.get(sandbox_id)
        envelopes = self.envelopes(stream_id(sandbox_id), before.version if before is not None else 0, events, at)
        state = fold(copy.copy(before), envelopes)
        assert state is not None
        self.store.append(envelopes, rows=inline.rows(state, before))
        self.states[sandbox_id] = state
        return state

    def member(self, *more: ev.Event, **fields: Any) -> str:
        """A member of the warm pool that was requested, and what else happened to it; returns its id."""
        member_id = f"pm_{uuid.uuid4().hex}"
        first = pool_story.requested().model_copy(update={"member_id": member_id, **fields})
        envelopes = self.envelopes(pool.stream_id(member_id), 0, [first, *more])
        member = None
        for envelope in envelopes:
            before = 0 if member is None else member.version
            member = pool.fold(member, [envelope])
            assert member is not None
            self.store.append([envelope], rows=inline.member_rows(member, before))
        return member_id

    def tell_strangely(self, stream: str, version: int, event: ev.Event) -> None:
        """Append an event that no state can be folded from, as another version of the program would."""
        self.store.append(self.envelopes(stream, version - 1, [event]))

    def positions(self) -> list[int]:
        """Those of all events: how far apart they are is the store's affair."""
        return positions_of(everything(self.store))

    def envelopes(
        self, stream: str, version: int, events: Sequence[ev.Event], at: datetime | None = None
    ) -> list[ev.Envelope]:
        return [
            ev.Envelope(
                event_id=str(uuid.uuid4()),
                originator_id=stream,
                originator_version=number,
                occurred_at=at or self.clock,
                event=event,
                actor="user:ada",
                tenant_id="default",
                agent_id=None,
                command="test",
                correlation_id="story",
                causation_id=None,
                origin="python@host:1",
            )
            for number, event in enumerate(events, start=version + 1)
        ]
