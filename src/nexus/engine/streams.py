"""Loading sandboxes from their streams, and recording what was decided: the only writer of sandbox events."""

from __future__ import annotations

import copy
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import uuid_utils
from pydantic import TypeAdapter

from nexus.domain.commands import Command
from nexus.domain.decisions import decide
from nexus.domain.errors import ConcurrentModification, NexusError, SandboxNotFound, StreamConflict
from nexus.domain.events import Envelope, Event
from nexus.domain.origin import checked
from nexus.domain.policies import Owner
from nexus.domain.ports import Clock, EventStore, RowWrite, Snapshot
from nexus.domain.sandbox import Sandbox, fold, stream_id
from nexus.domain.values import Principal
from nexus.projections import inline

RETRIES: Final = 30
"""How often a decision is taken anew when other writers were first."""
SNAPSHOT_EVERY: Final = 100
SNAPSHOT_SCHEMA: Final = 1
_CACHE_SIZE: Final = 1024
_STORY_WIDTH: Final = 32
"""Events that are looked at first when the beginning of something in flight is looked for: it is seldom far back."""


def new_id() -> str:
    """A time-ordered id for events and correlations."""
    return str(uuid_utils.uuid7())


@dataclass(frozen=True, slots=True)
class Cause:
    """Who and what an event comes from."""

    principal: Principal
    command: str
    correlation_id: str
    causation_id: str | None = None

    @classmethod
    def of(cls, principal: Principal, command: str) -> Cause:
        return cls(principal=principal, command=command, correlation_id=new_id())

    def after(self, envelope: Envelope) -> Cause:
        """The same story, caused by this event."""
        return replace(self, causation_id=envelope.event_id)


@dataclass(frozen=True, slots=True)
class Recorded:
    """The state after a command, and the events that it led to (none: nothing had to change)."""

    state: Sandbox
    envelopes: tuple[Envelope, ...]


class Streams:
    """Thread-safe. Keeps folded states and reads only what came after them, so a load is one small query."""

    def __init__(self, store: EventStore, clock: Clock, origin: Callable[[], str]) -> None:
        """`origin` says from where this process's events come, see `nexus.domain.origin`."""
        self.store = store
        self._clock = clock
        self._origin = origin
        self._cache: OrderedDict[str, Sandbox] = OrderedDict()
        self._lock = threading.Lock()
        self._adapter: TypeAdapter[Sandbox] | None = None

    def load(self, sandbox_id: str) -> Sandbox | None:
        """The current state; None for an unknown sandbox."""
        stream = stream_id(sandbox_id)
        with self._lock:
            cached = self._cache.get(sandbox_id)
        state = copy.copy(cached) if cached is not None else self._from_snapshot(stream)
        state = fold(state, self.store.history(stream, after=state.version if state is not None else 0))
        if state is not None:
            self._remember(state)
        return state

    def get(self, sandbox_id: str) -> Sandbox:
        """The current state; raises `SandboxNotFound`."""
        state = self.load(sandbox_id)
        if state is None:
            raise SandboxNotFound(sandbox_id)
        return state

    def execute(
        self,
        sandbox_id: str,
        command: Command,
        cause: Cause,
        *,
        expected: int | None = None,
        once: bool = False,
        rows: Sequence[RowWrite] = (),
    ) -> Recorded:
        """Load, decide, append; decide anew when another writer was first.

        `expected` refuses to decide on any other version (`StreamConflict`); `once` does not retry either. `rows`
        are written in the same transaction, beside those of the inline read models.
        """
        if expected is None and not once:
            recorded = self._execute_on_known(sandbox_id, command, cause, rows)
            if recorded is not None:
                return recorded
        for attempt in range(RETRIES):
            state = self.get(sandbox_id)
            if expected is not None and state.version != expected:
                raise StreamConflict(sandbox_id=sandbox_id, version=state.version)
            now = self.store.now()
            events = decide(command, state, now)
            if not events:
                return Recorded(state, ())
            try:
                return self._append(state, events, cause, now, rows)
            except StreamConflict:
                if once or expected is not None:
                    raise
                self.back_off(attempt)
        raise ConcurrentModification(sandbox_id=sandbox_id)

    def _execute_on_known(
        self, sandbox_id: str, command: Command, cause: Cause, rows: Sequence[RowWrite]
    ) -> Recorded | None:
        """Decide on the state as this process knows it, without looking: the append finds out whether it is still so.

        None where that led to nothing. A refusal, too, is for the state as it is now, never for one that may be old.
        """
        with self._lock:
            state = self._cache.get(sandbox_id)
        if state is None:
            return None
        now = self.store.now()
        try:
            events = decide(command, state, now)
        except NexusError:
            return None
        try:
            return self._append(state, events, cause, now, rows) if events else None
        except StreamConflict:
            return None

    def begin(
        self,
        sandbox_id: str,
        events: Sequence[Event],
        beside: Iterable[Envelope],
        cause: Cause,
        now: datetime,
        rows: Sequence[RowWrite] = (),
    ) -> Recorded:
        """Append a sandbox's first events together with envelopes of other streams (its name, its key), and rows."""
        own = self._envelopes(stream_id(sandbox_id), 0, events, cause, now, cause.principal.tenant_id)
        state = fold(None, own)
        if state is None:
            raise ValueError("a sandbox begins with an event")
        placed = self.store.append([*own, *beside], rows=[*inline.rows(state), *rows])
        self._remember(state)
        return Recorded(state, tuple(placed[: len(own)]))

    def envelope(self, stream: str, version: int, event: Event, cause: Cause, now: datetime) -> Envelope:
        """One envelope for a stream beside the sandboxes."""
        return self._envelopes(stream, version - 1, [event], cause, now, cause.principal.tenant_id)[0]

    def story(self, state: Sandbox, principal: Principal, command: str, begun: Callable[[Event], bool]) -> Cause:
        """The cause with which somebody else carries on what the last such event began: the same story, led on by it.

        A story of its own where there is no such event.
        """
        stream, upto, width = stream_id(state.sandbox_id), state.version, _STORY_WIDTH
        while upto > 0:
            after = max(0, upto - width)
            for envelope in reversed(self.store.load(stream, after=after, upto=upto)):
                if begun(envelope.event):
                    return Cause(principal, command, envelope.correlation_id, envelope.event_id)
            upto, width = after, width * 4
        return Cause.of(principal, command)

    def alone(self, kind: str, event: Event, cause: Cause) -> None:
        """Append one event in a stream of its own, `kind-…`: nobody can be first there."""
        envelope = self.envelope(f"{kind}-{new_id()}", 1, event, cause, self.store.now())
        self.store.append([envelope])

    def back_off(self, attempt: int) -> None:
        """A short, growing, jittered pause between attempts."""
        self._clock.sleep(random.random() * min(0.001 * 2**attempt, 0.1))

    def _append(
        self, state: Sandbox, events: Sequence[Event], cause: Cause, now: datetime, beside: Sequence[RowWrite] = ()
    ) -> Recorded:
        stream = stream_id(state.sandbox_id)
        envelopes = self._envelopes(stream, state.version, events, cause, now, state.tenant_id)
        after = fold(copy.copy(state), envelopes)
        if after is None:
            raise ValueError("unreachable: a state folds to a state")
        snapshots = []
        if state.version // SNAPSHOT_EVERY != after.version // SNAPSHOT_EVERY:
            snapshots.append(Snapshot(stream, after.version, SNAPSHOT_SCHEMA, self._states().dump_json(after)))
        rows = [*inline.rows(after, state), *beside]
        placed = self.store.append(envelopes, rows=rows, snapshots=snapshots)
        self._remember(after)
        return Recorded(after, tuple(placed))

    def _envelopes(
        self, stream: str, version: int, events: Sequence[Event], cause: Cause, now: datetime, tenant_id: str
    ) -> list[Envelope]:
        principal, origin = cause.principal, checked(self._origin())
        return [
            Envelope(
                event_id=new_id(),
                originator_id=stream,
                originator_version=number,
                occurred_at=now,
                event=event,
                actor=principal.actor,
                tenant_id=tenant_id,
                agent_id=principal.agent_id,
                command=cause.command,
                correlation_id=cause.correlation_id,
                causation_id=cause.causation_id,
                origin=origin,
            )
            for number, event in enumerate(events, start=version + 1)
        ]

    def _states(self) -> TypeAdapter[Sandbox]:
        if self._adapter is None:
            self._adapter = TypeAdapter(Sandbox)
        return self._adapter

    def _from_snapshot(self, stream: str) -> Sandbox | None:
        snapshot = self.store.snapshot(stream)
        if snapshot is None or snapshot.schema_version != SNAPSHOT_SCHEMA:
            return None
        return self._states().validate_json(snapshot.state)

    def _remember(self, state: Sandbox) -> None:
        with self._lock:
            known = self._cache.get(state.sandbox_id)
            if known is None or known.version <= state.version:
                self._cache[state.sandbox_id] = copy.copy(state)
            self._cache.move_to_end(state.sandbox_id)
            while len(self._cache) > _CACHE_SIZE:
                self._cache.popitem(last=False)


def owner_of(state: Sandbox) -> Owner:
    return Owner(user_id=state.user_id, tenant_id=state.tenant_id)


Steps = Callable[[str], None]
"""Called at every boundary of the protocol with its name, so that a test can end the process right there."""


def no_steps(_name: str) -> None:
    """The `Steps` of every ordinary process."""
