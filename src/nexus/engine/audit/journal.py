"""The audit log: who did what, when, and caused by what; filtered, and only as far as one may see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nexus.domain.events import Envelope
from nexus.domain.origin import is_within
from nexus.domain.values import Principal, to_text
from nexus.engine.eventlog import EventLog, sandbox_of
from nexus.projections.narrative import sentence


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries somebody asks for; what is not given does not matter.

    Times are compared with the store's own (`recorded_at`): `since` is inside, `until` is not, so that adjoining
    periods share no entry.
    """

    actor: str | None = None
    tenant: str | None = None
    agent: str | None = None
    command: str | None = None
    origin: str | None = None
    """All of an origin, or `door`, `door@machine`, `@machine`, `@machine:pid`."""
    correlation: str | None = None
    types: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    def fits(self, envelope: Envelope) -> bool:
        when = envelope.recorded_at or envelope.occurred_at
        return (
            self.actor in (None, envelope.actor)
            and self.tenant in (None, envelope.tenant_id)
            and self.agent in (None, envelope.agent_id)
            and self.command in (None, envelope.command)
            and (self.origin is None or is_within(envelope.origin, self.origin))
            and self.correlation in (None, envelope.correlation_id)
            and (not self.types or envelope.topic in self.types)
            and (self.since is None or self.since <= when)
            and (self.until is None or when < self.until)
        )


@dataclass(frozen=True, slots=True)
class JournalPage:
    """Some entries by position; `after` asks for those that follow, None when there were no more."""

    entries: tuple[Envelope, ...]
    after: int | None


class Journal:
    """Questions to the audit log. What the principal may not see is not there."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def entries(
        self,
        principal: Principal,
        wanted: Wanted,
        *,
        sandbox: str | None = None,
        after: int = 0,
        upto: int | None = None,
    ) -> Iterator[Envelope]:
        """What fits, oldest first: after < position <= upto, of one sandbox or of all.

        Raises `SandboxNotFound`, and `InvalidInput` for an event type that there is not; both at once.
        """
        found = self._log.each(principal, reference=sandbox, after=after, upto=upto, types=wanted.types)
        return (envelope for envelope in found if wanted.fits(envelope))

    def page(
        self,
        principal: Principal,
        wanted: Wanted,
        *,
        limit: int,
        sandbox: str | None = None,
        after: int = 0,
        upto: int | None = None,
    ) -> JournalPage:
        """At most `limit` (1 or more) of them. Raises as `entries` does."""
        entries: list[Envelope] = []
        for envelope in self.entries(principal, wanted, sandbox=sandbox, after=after, upto=upto):
            if len(entries) == limit:
                return JournalPage(tuple(entries), entries[-1].position)
            entries.append(envelope)
        return JournalPage(tuple(entries), None)


def record(envelope: Envelope) -> dict[str, Any]:
    """One entry as plain JSON values: when, who, what, caused by what, and the event's own data."""
    return {
        "position": envelope.position,
        "event_id": envelope.event_id,
        "occurred_at": to_text(envelope.occurred_at),
        "recorded_at": None if envelope.recorded_at is None else to_text(envelope.recorded_at),
        "actor": envelope.actor,
        "tenant_id": envelope.tenant_id,
        "agent_id": envelope.agent_id,
        "origin": envelope.origin,
        "command": envelope.command,
        "type": envelope.topic,
        "schema_version": envelope.schema_version,
        "sandbox_id": sandbox_of(envelope),
        "correlation_id": envelope.correlation_id,
        "causation_id": envelope.causation_id,
        "sentence": sentence(envelope),
        "data": envelope.event.model_dump(mode="json"),
    }
