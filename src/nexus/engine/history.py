"""What was true then: status and list as of a time or a position, and replay, straight from the events.

Nothing here asks a read model about the past or a provider about anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

from nexus.domain.errors import InvalidInput, SandboxNotFound
from nexus.domain.events import Envelope, NameClaimed, Unread
from nexus.domain.names import name_stream
from nexus.domain.policies import authorize
from nexus.domain.ports import EventStore
from nexus.domain.sandbox import Sandbox, fold, sandbox_id_of, stream_id
from nexus.domain.validation import is_sandbox_id, shown
from nexus.domain.values import Action, Principal, SandboxState
from nexus.engine.streams import owner_of
from nexus.engine.views import view_of
from nexus.projections.queries import SandboxQueries
from nexus.projections.views import SandboxView

_PAGE = 5000

AsOf = int | str | datetime
"""What `Moment.of` takes."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in the log: everything up to a position, or everything recorded up to a time. Both are inclusive."""

    position: int | None = None
    time: datetime | None = None

    @classmethod
    def parse(cls, text: str) -> Moment:
        """A position (`4711`) or an ISO 8601 time with its offset (`2026-11-23T10:42:00Z`)."""
        if text.isascii() and text.isdigit() and len(text) < 20:
            return cls(position=int(text))
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            time = None
        if time is None or time.tzinfo is None:
            raise InvalidInput(
                f"{shown(text)} is neither a position nor a time with an offset",
                hint="Give a position such as 4711 or a time such as 2026-11-23T10:42:00+00:00.",
                field="as-of",
            )
        return cls(time=time)

    @classmethod
    def of(cls, given: AsOf) -> Moment:
        """A position, an aware time, or what `parse` reads."""
        if isinstance(given, str):
            return cls.parse(given)
        if isinstance(given, datetime):
            if given.tzinfo is None:
                raise InvalidInput("A time needs its offset", hint="Give an aware datetime.", field="as-of")
            return cls(time=given)
        if type(given) is not int or not 0 <= given < 1 << 63:
            raise InvalidInput(
                f"{shown(str(given))} is neither a position nor a time",
                hint="Give a position such as 4711, an aware datetime, or its text.",
                field="as-of",
            )
        return cls(position=given)

    def covers(self, envelope: Envelope) -> bool:
        if self.position is not None:
            return envelope.position is not None and envelope.position <= self.position
        return self.time is None or (envelope.recorded_at is not None and envelope.recorded_at <= self.time)


NOW = Moment()


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a replay, and the state after it."""

    envelope: Envelope
    view: SandboxView


class History:
    """Questions about the past."""

    def __init__(self, store: EventStore, queries: SandboxQueries) -> None:
        self._store = store
        self._queries = queries

    def status(self, principal: Principal, reference: str, moment: Moment) -> SandboxView:
        """One sandbox as it was. A name means the sandbox that bore it then. `SandboxNotFound` before its time."""
        return view_of(self._state(principal, reference, moment))

    def fleet(
        self,
        principal: Principal,
        moment: Moment,
        *,
        states: Iterable[str] | None = None,
        provider: str | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        all_users: bool = False,
    ) -> list[SandboxView]:
        """The list as it was, newest first."""
        wanted = None if states is None else {SandboxState(state) for state in states}
        found = []
        for state in self._fleet(moment).values():
            mine = principal.is_system or (
                state.tenant_id == principal.tenant_id
                and (state.user_id == principal.user_id or (all_users and principal.is_admin))
            )
            if (
                mine
                and (wanted is None or state.state in wanted)
                and provider in (None, state.provider)
                and name in (None, state.name)
                and (labels or {}).items() <= state.labels.items()
            ):
                found.append(view_of(state))
        return sorted(found, key=lambda view: (view.created_at, view.sandbox_id), reverse=True)

    def replay(self, principal: Principal, reference: str, moment: Moment = NOW) -> Iterator[Step]:
        """Every event of a sandbox up to a moment, with the state after each. Never touches a provider."""
        sandbox_id = self._sandbox_id(principal, reference, moment)
        state: Sandbox | None = None
        for envelope in takewhile(moment.covers, self._store.load(stream_id(sandbox_id))):
            state = fold(state, [envelope])
            if state is None:
                raise SandboxNotFound(reference)
            authorize(principal, Action.READ, owner_of(state), reference)
            yield Step(envelope, view_of(state))

    def _state(self, principal: Principal, reference: str, moment: Moment) -> Sandbox:
        sandbox_id = self._sandbox_id(principal, reference, moment)
        past: Iterator[Envelope] = takewhile(moment.covers, self._store.load(stream_id(sandbox_id)))
        state = fold(None, past)
        if state is None:
            raise SandboxNotFound(reference)
        authorize(principal, Action.READ, owner_of(state), reference)
        return state

    def _sandbox_id(self, principal: Principal, reference: str, moment: Moment) -> str:
        if is_sandbox_id(reference):
            return reference
        claims = self._store.load(name_stream(principal.tenant_id, principal.user_id, reference))
        past = takewhile(moment.covers, claims)
        named = [claim.event.sandbox_id for claim in past if isinstance(claim.event, NameClaimed)]
        return named[-1] if named else self._queries.by_reference(reference, principal).sandbox_id

    def _fleet(self, moment: Moment) -> dict[str, Sandbox]:
        """Every sandbox's state, by one pass over the log."""
        states: dict[str, Sandbox] = {}
        ended: set[str] = set()
        after = 0
        while page := self._store.read(after, _PAGE, upto=moment.position):
            for envelope in page:
                sandbox_id = sandbox_id_of(envelope.originator_id)
                if sandbox_id is None or sandbox_id in ended:
                    continue
                if isinstance(envelope.event, Unread) or not moment.covers(envelope):
                    # As it was before what this version cannot read. And a stream has no holes: should the server's
                    # clock have been set back, what follows an event that came later came later, too.
                    ended.add(sandbox_id)
                    continue
                state = fold(states.get(sandbox_id), [envelope])
                if state is not None:
                    states[sandbox_id] = state
            last = page[-1].position
            if last is None:
                break
            after = last
        return states
