"""Our envelopes in the event sourcing library's terms: what its mapper and its recorders pass around.

The envelope's facts are columns beside the payload, so that they can be searched, sealed and read without it.
Stores of every database share this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import JSONTranscoder, Mapper, Notification, StoredEvent

from nexus.domain.encoding import decode, encode, read
from nexus.domain.events import Envelope, Event, Fact, Unread
from nexus.domain.values import to_text


@dataclass(frozen=True)
class EnvelopeRecord(StoredEvent):
    """An envelope on its way into the database."""

    event_id: str
    schema_version: int
    occurred_at: str
    actor: str
    tenant_id: str
    agent_id: str | None
    command: str
    correlation_id: str
    causation_id: str | None
    origin: str


@dataclass(frozen=True)
class PlacedRecord(Notification):
    """An envelope as the database holds it; `id` is its position.

    One that `placed` made keeps the row and becomes attributes only if somebody asks: reading the log does not.
    """

    event_id: str
    schema_version: int
    occurred_at: str
    recorded_at: str
    actor: str
    tenant_id: str
    agent_id: str | None
    command: str
    correlation_id: str
    causation_id: str | None
    origin: str

    def __getattr__(self, name: str) -> Any:
        row = self.__dict__.pop("_row", None)
        if row is None:
            raise AttributeError(name)
        self.__dict__.update(zip(PLACED, row, strict=True))
        return getattr(self, name)

    def row(self) -> Sequence[Any]:
        """The values in the order of `PLACED`."""
        row: Sequence[Any] | None = self.__dict__.get("_row")
        return row if row is not None else [getattr(self, name) for name in PLACED]


PLACED: Final = (
    "id",
    "event_id",
    "originator_id",
    "originator_version",
    "topic",
    "schema_version",
    "state",
    "occurred_at",
    "recorded_at",
    "actor",
    "tenant_id",
    "agent_id",
    "command",
    "correlation_id",
    "causation_id",
    "origin",
)
"""Attributes of a `PlacedRecord` in the order in which stores select its columns."""


def placed(row: Sequence[Any]) -> PlacedRecord:
    """A record from a row. Not through its constructor: a frozen one sets its sixteen fields one by one."""
    record = object.__new__(PlacedRecord)
    record.__dict__["_row"] = row
    return record


class EnvelopeMapper(Mapper[str]):
    """Between envelopes and records. What it cannot read raises `UnreadableEvent`."""

    def __init__(self) -> None:
        super().__init__(JSONTranscoder())

    def to_stored_event(self, domain_event: DomainEventProtocol[str]) -> EnvelopeRecord:
        envelope = cast(Envelope, domain_event)
        if isinstance(envelope.event, Unread):
            raise ValueError(f"{envelope.topic} cannot be read, and so it cannot be stored again")
        record = object.__new__(EnvelopeRecord)  # not through its constructor: see `placed`
        record.__dict__.update(
            originator_id=envelope.originator_id,
            originator_version=envelope.originator_version,
            topic=envelope.event.TOPIC,
            state=encode(envelope.event),
            event_id=envelope.event_id,
            schema_version=envelope.event.VERSION,
            occurred_at=to_text(envelope.occurred_at),
            actor=envelope.actor,
            tenant_id=envelope.tenant_id,
            agent_id=envelope.agent_id,
            command=envelope.command,
            correlation_id=envelope.correlation_id,
            causation_id=envelope.causation_id,
            origin=envelope.origin,
        )
        return record

    def to_domain_event(self, stored_event: StoredEvent) -> Envelope:
        row = cast(PlacedRecord, stored_event).row()
        return _envelope(row, decode(row[_TOPIC], row[_SCHEMA_VERSION], row[_STATE]))

    def to_facts(self, rows: Iterable[tuple[str, int, bytes, str, int]]) -> Iterator[Fact]:
        """From topic, schema version, state, time and version, one by one: what nobody keeps costs little."""
        for topic, schema_version, state, occurred_at, version in rows:
            # Not through its constructor, see `placed`: that one is a function in Python, too.
            yield _new(Fact, (decode(topic, schema_version, state), datetime.fromisoformat(occurred_at), version))

    def to_page(self, records: Sequence[PlacedRecord]) -> list[Envelope]:
        """Like `to_domain_event` for a page of the log: an event that cannot be read stands there as `Unread`."""
        rows = (record.row() for record in records)
        return [_envelope(row, read(row[_TOPIC], row[_SCHEMA_VERSION], row[_STATE])) for row in rows]


_new: Final = tuple.__new__
_TOPIC, _SCHEMA_VERSION, _STATE = (PLACED.index(name) for name in ("topic", "schema_version", "state"))


def _envelope(row: Sequence[Any], event: Event) -> Envelope:
    (
        position,
        event_id,
        stream,
        version,
        _,
        _,
        _,
        occurred_at,
        recorded_at,
        actor,
        tenant,
        agent,
        command,
        story,
        cause,
        origin,
    ) = row
    return Envelope(
        event_id,
        stream,
        version,
        datetime.fromisoformat(occurred_at),
        event,
        actor,
        tenant,
        command,
        story,
        cause,
        origin,
        agent,
        position,
        datetime.fromisoformat(recorded_at),
    )


def is_same(record: EnvelopeRecord, stored: PlacedRecord | None) -> bool:
    """Whether this very event is what is stored: an append whose answer was lost finds its own event."""
    return (
        stored is not None
        and stored.originator_id == record.originator_id
        and stored.originator_version == record.originator_version
        and stored.topic == record.topic
        and stored.state == record.state
    )


def find_own(records: Sequence[EnvelopeRecord], stored: Mapping[str, PlacedRecord]) -> list[PlacedRecord] | None:
    """The stored records of an append that was already carried out, in its order; None where it was not."""
    own = [stored.get(record.event_id) for record in records]
    if all(is_same(record, found) for record, found in zip(records, own, strict=True)):
        return [found for found in own if found is not None]
    return None


def placed_at(envelope: Envelope, position: int, recorded_at: datetime) -> Envelope:
    """What `dataclasses.replace` makes, at a third of its price: this is on the path of every append."""
    return Envelope(
        envelope.event_id,
        envelope.originator_id,
        envelope.originator_version,
        envelope.occurred_at,
        envelope.event,
        envelope.actor,
        envelope.tenant_id,
        envelope.command,
        envelope.correlation_id,
        envelope.causation_id,
        envelope.origin,
        envelope.agent_id,
        position,
        recorded_at,
    )
