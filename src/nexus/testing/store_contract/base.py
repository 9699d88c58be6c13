"""Fixtures of the contract suite, and the events and tables that its tests write."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import ClassVar

import pytest

from nexus.domain.events import DriftObserved, Envelope, Event
from nexus.domain.ports import EventStore, RowWrite, Scalar, Table

OpenStore = Callable[[], EventStore]
RunSql = Callable[[str], None]

PETS = Table(
    "pets",
    {"pet_id": "text", "version": "integer", "name": "text", "weight": "real"},
    key=("pet_id",),
    indexes=(("name",), ("weight", "name")),
)


class StoreContractBase:
    """What a subclass must and may give.

    Must: the fixture `reopen`, a function that opens the store anew each time it is called, always on the same
    database, which is empty at first; it has to survive pickling, because other processes call it, too. And the
    fixture `run_sql`, which runs one statement of SQL as the application's own database user and commits it.
    """

    patience: ClassVar[float] = 60.0
    """Seconds that anything awaited may take."""

    @pytest.fixture
    def reopen(self) -> OpenStore:
        raise AssertionError("give the fixture `reopen`: see nexus.testing.store_contract")

    @pytest.fixture
    def run_sql(self) -> RunSql:
        raise AssertionError("give the fixture `run_sql`: see nexus.testing.store_contract")

    @pytest.fixture
    def store(self, reopen: OpenStore) -> Iterator[EventStore]:
        opened = reopen()
        yield opened
        opened.close()

    @pytest.fixture
    def other(self, reopen: OpenStore, store: EventStore) -> Iterator[EventStore]:
        """The same database for another worker."""
        opened = reopen()
        yield opened
        opened.close()


def new_stream() -> str:
    return f"sandbox-{uuid.uuid4().hex}"


def envelope(
    stream: str, version: int, event: Event | None = None, *, event_id: str = "", at: datetime | None = None
) -> Envelope:
    """An event on its way into the store."""
    return Envelope(
        event_id=event_id or str(uuid.uuid4()),
        originator_id=stream,
        originator_version=version,
        occurred_at=at or datetime.now(UTC),
        event=event or DriftObserved(kind="noted", detail=f"{stream} {version}"),
        actor="user:ada",
        tenant_id="acme",
        agent_id="agent-7",
        command="test",
        correlation_id="story-1",
        causation_id=None,
        origin="python@host:1",
    )


def stretch(stream: str, first: int, last: int) -> list[Envelope]:
    """Events `first` to `last` of a stream."""
    return [envelope(stream, version) for version in range(first, last + 1)]


def pet(pet_id: str, **values: Scalar) -> RowWrite:
    """A row that needs no version to be written."""
    return RowWrite(PETS.name, {"pet_id": pet_id}, values)


def pets(store: EventStore) -> list[dict[str, Scalar]]:
    return store.views.query("SELECT * FROM pets ORDER BY pet_id")


def positions_of(envelopes: Sequence[Envelope]) -> list[int]:
    """Their positions; fails for one that was never placed."""
    found = [one.position for one in envelopes if one.position is not None]
    assert len(found) == len(envelopes)
    return found


def everything(store: EventStore) -> list[Envelope]:
    """The whole log, page by page."""
    found: list[Envelope] = []
    while page := store.read(positions_of(found[-1:])[0] if found else 0, 500):
        found.extend(page)
    return found
