"""The event store in one SQLite file: the `EventStore` port on top of the event sourcing library's own store."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

from eventsourcing import persistence

from nexus.adapters.stores.recording import EnvelopeMapper, find_own, placed_at
from nexus.adapters.stores.sqlite.bodies import SQLiteBodies
from nexus.adapters.stores.sqlite.database import BUSY_SECONDS, Database
from nexus.adapters.stores.sqlite.recorder import Datastore, Recorder
from nexus.adapters.stores.sqlite.views import SQLiteViews
from nexus.domain.errors import StreamConflict
from nexus.domain.events import Envelope, Fact
from nexus.domain.ports import RowWrite, Snapshot, Table

_SHORTEST_LOOK: Final = 0.002
_LONGEST_LOOK: Final = 0.025
"""Seconds between two looks for what other processes appended; this process's own appends wake at once."""


class SQLiteStore:
    """Implements the `EventStore` port. Thread-safe, several processes may share the file, forks are harmless.

    SQLite has one writer at a time, so positions are given in the order of commits and every reader can trust the
    newest one that it sees.
    """

    def __init__(self, path: Path, *, tables: Sequence[Table] = (), busy_seconds: float = BUSY_SECONDS) -> None:
        """Opens or makes the file, its schema and these read models' `tables`, all at once or not at all.

        `busy_seconds` bounds the wait for other writers. Raises `StoreUnavailable` and `SchemaMismatch`.
        """
        self._database = Database(path, tables=tables, busy_seconds=busy_seconds)
        self._mapper = EnvelopeMapper()
        self._recorder = Recorder(Datastore(self._database))
        self._events = persistence.EventStore(self._mapper, self._recorder)
        self._views = SQLiteViews(self._database)
        self._bodies = SQLiteBodies(self._database)
        with self._database.reading() as connection:
            (self._installation,) = connection.execute("SELECT id FROM installation").fetchone()

    @property
    def installation(self) -> str:
        return str(self._installation)

    @property
    def views(self) -> SQLiteViews:
        return self._views

    @property
    def bodies(self) -> SQLiteBodies:
        """Kept code and output, beside the log."""
        return self._bodies

    def now(self) -> datetime:
        """This machine's clock: the file is shared by the processes of one machine only."""
        return datetime.now(UTC)

    def append(
        self,
        envelopes: Sequence[Envelope],
        *,
        rows: Sequence[RowWrite] = (),
        snapshots: Sequence[Snapshot] = (),
    ) -> list[Envelope]:
        records = list(map(self._mapper.to_stored_event, envelopes))
        receipt: list[str] = []
        try:
            positions = self._recorder.insert_events(records, rows=rows, snapshots=snapshots, receipt=receipt)
        except persistence.IntegrityError as error:
            return self._appended_before(envelopes, error)
        self._database.announce()
        return [
            placed_at(envelope, position, datetime.fromisoformat(moment))
            for envelope, position, moment in zip(envelopes, positions, receipt, strict=True)
        ]

    def _appended_before(self, envelopes: Sequence[Envelope], error: persistence.IntegrityError) -> list[Envelope]:
        records = [self._mapper.to_stored_event(envelope) for envelope in envelopes]
        stored = self._recorder.select_by_ids([record.event_id for record in records])
        own = find_own(records, stored)
        if own is not None:
            return [self._mapper.to_domain_event(record) for record in own]
        streams = sorted({envelope.originator_id for envelope in envelopes})
        raise StreamConflict(f"Another writer was first in {', '.join(streams)}", streams=tuple(streams)) from error

    def load(self, stream: str, *, after: int = 0, upto: int | None = None) -> list[Envelope]:
        return cast(list[Envelope], list(self._events.get(stream, gt=after, lte=upto)))

    def history(self, stream: str, *, after: int = 0, upto: int | None = None) -> Iterator[Fact]:
        return self._mapper.to_facts(self._recorder.select_facts(stream, after, upto))

    def last(self, stream: str) -> Envelope | None:
        return cast(Envelope | None, next(self._events.get(stream, desc=True, limit=1), None))

    def snapshot(self, stream: str) -> Snapshot | None:
        with self._database.reading() as connection:
            row = connection.execute("SELECT * FROM snapshots WHERE originator_id = ?", (stream,)).fetchone()
        return Snapshot(*row) if row is not None else None

    def read(
        self, after: int, limit: int = 1000, *, upto: int | None = None, topics: Sequence[str] = ()
    ) -> list[Envelope]:
        records = self._recorder.select_notifications(after, limit, upto, topics, inclusive_of_start=False)
        return self._mapper.to_page(records)

    def raw(
        self, after: int, limit: int = 1000, *, upto: int | None = None, columns: Sequence[str] = ()
    ) -> list[tuple[Any, ...]]:
        return self._recorder.select_raw(after, limit, upto, columns)

    def pages(self, size: int, *, columns: Sequence[str] = ()) -> Generator[list[tuple[Any, ...]], None, None]:
        after = 0
        while page := self.raw(after, size, columns=columns):
            yield page
            if len(page) < size:
                break
            after = page[-1][0]

    def head(self) -> int:
        return self._recorder.max_notification_id() or 0

    def wait(self, after: int, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        pause = _SHORTEST_LOOK
        while True:
            seen = self._database.announced
            if self.head() > after:
                return True
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            self._database.wait_for_news(seen, min(pause, remaining))
            pause = min(pause * 1.5, _LONGEST_LOOK)

    def close(self) -> None:
        self._database.close()
