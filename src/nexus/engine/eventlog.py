"""Reading the log itself, for those who may: an event that is about a sandbox is seen by who may see that, the others
of the warm pool by operators."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from heapq import merge

from nexus.domain.errors import InvalidInput, NotFound, SandboxNotFound
from nexus.domain.events import BY_TOPIC, CommandRefused, Envelope, KeyClaimed, NameClaimed
from nexus.domain.policies import Owner, authorize
from nexus.domain.pool_events import POOL_EVENTS, PoolMemberTaken
from nexus.domain.ports import EventStore
from nexus.domain.refusals import as_told
from nexus.domain.sandbox import sandbox_id_of, stream_id
from nexus.domain.validation import shown
from nexus.domain.values import Action, Principal
from nexus.projections.queries import SandboxQueries

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events by position; `after` asks for those that follow, None at the log's end."""

    events: tuple[Envelope, ...]
    after: int | None


def sandbox_of(envelope: Envelope) -> str | None:
    """Which sandbox an event is about; None for one that names no sandbox that this version can read."""
    if isinstance(envelope.event, NameClaimed | KeyClaimed | CommandRefused | PoolMemberTaken):
        return envelope.event.sandbox_id
    return sandbox_id_of(envelope.originator_id)


class EventLog:
    """Questions to the log. Raises `InvalidInput` for an event type that there is not."""

    def __init__(self, store: EventStore, queries: SandboxQueries) -> None:
        self._store = store
        self._queries = queries
        self._owners: dict[str, Owner] = {}

    def of(
        self,
        principal: Principal,
        reference: str,
        *,
        after: int = 0,
        limit: int | None = None,
        types: Collection[str] = (),
    ) -> EventPage:
        """The events of one sandbox, oldest first, after a position. Raises `SandboxNotFound`."""
        _check(types)
        view = self._queries.by_reference(reference, principal)
        events = [
            envelope
            for envelope in self._store.load(stream_id(view.sandbox_id))
            if (envelope.position or 0) > after and (not types or envelope.topic in types)
        ]
        if limit is None or len(events) <= limit:
            return EventPage(tuple(events), None)
        return EventPage(tuple(events[:limit]), events[limit - 1].position)

    def page(
        self,
        principal: Principal,
        *,
        after: int = 0,
        upto: int | None = None,
        limit: int | None = 100,
        types: Collection[str] = (),
    ) -> EventPage:
        """The events that the principal may see, oldest first: after < position <= upto."""
        _check(types)
        found: list[Envelope] = []
        for envelope in self._seen(principal, after, upto, types):
            if limit is not None and len(found) == limit:
                return EventPage(tuple(found), found[-1].position)
            found.append(envelope)
        return EventPage(tuple(found), None)

    def last(self, principal: Principal, limit: int, *, upto: int, types: Collection[str] = ()) -> list[Envelope]:
        """The newest up to a position that the principal may see, oldest of them first."""
        _check(types)
        if limit == 0:
            return []
        width = max(_PAGE, 4 * limit)
        while True:
            # Positions may have gaps of any width, so the window grows until it holds enough or everything.
            start = max(0, upto - width)
            found = list(self._seen(principal, start, upto, types))
            if len(found) >= limit or start == 0:
                return found[-limit:]
            width *= 16

    def each(
        self,
        principal: Principal,
        *,
        reference: str | None = None,
        after: int = 0,
        upto: int | None = None,
        types: Collection[str] = (),
    ) -> Iterator[Envelope]:
        """One by one: of all that the principal may see, or of one sandbox, however long: after < position <= upto.

        Of a sandbox these are its events and the commands on it that were refused. Raises at once, not at the first
        event.
        """
        _check(types)
        if reference is None:
            return self._seen(principal, after, upto, types)
        sandbox_id = self._queries.by_reference(reference, principal).sandbox_id
        stream = self._store.load(stream_id(sandbox_id))
        own = (
            envelope
            for envelope in stream
            if after < (envelope.position or 0)
            and (upto is None or (envelope.position or 0) <= upto)
            and (not types or envelope.topic in types)
        )
        if types and CommandRefused.TOPIC not in types:
            return own
        began = stream[0].position or 0  # before that there was nothing to be refused on
        refused = self._seen(principal, max(after, began), upto, (CommandRefused.TOPIC,))
        about = (envelope for envelope in refused if sandbox_of(envelope) == sandbox_id)
        return merge(own, about, key=lambda envelope: envelope.position or 0)

    def find(self, principal: Principal, wanted: int | str) -> Envelope:
        """By position, or by event id. `NotFound` for one of another's sandbox just as for none."""
        if isinstance(wanted, int):
            candidates = iter(self._store.read(wanted - 1, 1, upto=wanted))
        else:
            candidates = (envelope for envelope in self._from(0) if envelope.event_id == wanted)
        envelope = next(candidates, None)
        told = None if envelope is None else self._told(principal, envelope)
        if told is None:
            raise NotFound(
                f"Event {shown(str(wanted))} not found",
                hint="`nexus events list` shows positions and ids.",
                event=wanted,
            )
        return told

    def head(self) -> int:
        """The log's end as it is now: what to read up to, and to follow from."""
        return self._store.head()

    def wait(self, after: int, timeout: float) -> bool:
        """Wait up to `timeout` seconds until there is something after this position."""
        return self._store.wait(after, timeout)

    def _from(self, after: int, upto: int | None = None, types: Collection[str] = ()) -> Iterator[Envelope]:
        while page := self._store.read(after, _PAGE, upto=upto, topics=tuple(types)):
            yield from page
            after = page[-1].position or 0

    def _seen(self, principal: Principal, after: int, upto: int | None, types: Collection[str]) -> Iterator[Envelope]:
        for envelope in self._from(after, upto, types):
            told = self._told(principal, envelope)
            if told is not None:
                yield told

    def _told(self, principal: Principal, envelope: Envelope) -> Envelope | None:
        """The event as this principal may read it; None for one that is not theirs to see."""
        if principal.is_system:
            return envelope
        if isinstance(envelope.event, CommandRefused):
            return _refusal_told(principal, envelope, envelope.event)
        sandbox_id = sandbox_of(envelope)
        if sandbox_id is None and isinstance(envelope.event, POOL_EVENTS):
            return envelope if principal.is_admin else None
        owner = self._owner(sandbox_id) if sandbox_id is not None else None
        if sandbox_id is None or owner is None:
            return None
        try:
            authorize(principal, Action.READ, owner, sandbox_id)
        except SandboxNotFound:
            return None
        return envelope

    def _owner(self, sandbox_id: str) -> Owner | None:
        """Never changes, so it is asked for once."""
        known = self._owners.get(sandbox_id)
        if known is None:
            view = self._queries.get(sandbox_id)
            if view is None:
                return None
            known = self._owners[sandbox_id] = Owner(user_id=view.user_id, tenant_id=view.tenant_id)
        return known


def _refusal_told(principal: Principal, envelope: Envelope, event: CommandRefused) -> Envelope | None:
    """A refusal is its caller's to see, and their tenant's admins'; these alone see what the caller was not told."""
    try:
        authorize(principal, Action.READ, Owner(user_id=event.user_id, tenant_id=envelope.tenant_id))
    except SandboxNotFound:
        return None
    return envelope if principal.is_admin else replace(envelope, event=as_told(event))


def _check(types: Collection[str]) -> None:
    for topic in types:
        if topic not in BY_TOPIC:
            raise InvalidInput(f"There is no event type {shown(topic)}", hint=_known_types(), field="type")


def _known_types() -> str:
    """All of them, each beginning said once: as full names they are more than anybody reads."""
    endings: dict[str, list[str]] = {}
    for topic in sorted(BY_TOPIC):
        group, _, ending = topic.partition(".")
        endings.setdefault(group, []).append(ending)
    listed = (f"{group}.{', .'.join(found)}" for group, found in endings.items())
    return f"Types: {'; '.join(listed)}."
