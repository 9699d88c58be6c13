"""The event store in Postgres: the `EventStore` port on top of the event sourcing library's own store."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, Final, cast

from eventsourcing import persistence

from nexus.adapters.stores.postgres.bodies import PostgresBodies
from nexus.adapters.stores.postgres.database import MAX_CONNECTIONS, Database
from nexus.adapters.stores.postgres.faults import ConnectionLost
from nexus.adapters.stores.postgres.health import Blocker, held_back
from nexus.adapters.stores.postgres.news import News
from nexus.adapters.stores.postgres.recorder import Recorder
from nexus.adapters.stores.postgres.views import PostgresViews
from nexus.adapters.stores.recording import EnvelopeMapper, find_own, placed_at
from nexus.domain.errors import StoreOutcomeUnknown, StoreUnavailable, StreamConflict
from nexus.domain.events import Envelope, Fact
from nexus.domain.ports import RowWrite, Snapshot

LONGEST_LOOK: Final = 1.0
"""Seconds between two looks of a waiting reader that nobody told anything."""
_SHORTEST_LOOK: Final = 0.001
OWN_SECONDS: Final = 1.0
"""How long a reader waits for this process's own events, while an older transaction keeps them from being trusted."""
RESOLVE_SECONDS: Final = 15.0
"""How long an append whose answer was lost looks for the server, to learn what became of it."""


class PostgresStore:
    """Implements the `EventStore` port. Thread-safe, for any number of processes and machines; forks are harmless.

    A position is made of the transaction that stored the event. Readers see positions of transactions that are older
    than every one still running, so whatever appears later has a higher position.
    """

    def __init__(self, url: str, *, max_connections: int = MAX_CONNECTIONS) -> None:
        """Connects, and checks that `nexus migrate` was here. A rebuild needs two of `max_connections`.

        Raises `StoreUnavailable`, `SchemaMismatch`, `StoreRestored`, and `ConfigurationError` for a bad URL.
        """
        self._database = Database(url, max_connections=max_connections)
        self._mapper = EnvelopeMapper()
        self._recorder = Recorder(self._database)
        self._events = persistence.EventStore(self._mapper, self._recorder)
        self._views = PostgresViews(self._database)
        self._bodies = PostgresBodies(self._database)
        self._news = News(self._database)
        self._own = 0
        self._trusted = 0
        self._database.ask(lambda link: link.epoch)

    def __repr__(self) -> str:
        return f"PostgresStore({str(self._database.address)!r})"

    @property
    def installation(self) -> str:
        return self._database.installation

    @property
    def views(self) -> PostgresViews:
        return self._views

    @property
    def bodies(self) -> PostgresBodies:
        """Kept code and output, beside the log."""
        return self._bodies

    def now(self) -> datetime:
        """The server's clock: never ahead of it, and behind by less than a round trip."""
        return self._database.now()

    # --- appending -----------------------------------------------------------------------------------------------
    def append(
        self,
        envelopes: Sequence[Envelope],
        *,
        rows: Sequence[RowWrite] = (),
        snapshots: Sequence[Snapshot] = (),
    ) -> list[Envelope]:
        receipt: list[str] = []
        try:
            positions = self._put(envelopes, rows, snapshots, receipt)
        except persistence.IntegrityError as error:
            return self._appended_before(envelopes, error)
        placed = [
            placed_at(envelope, position, datetime.fromisoformat(moment))
            for envelope, position, moment in zip(envelopes, positions, receipt, strict=True)
        ]
        self._announce(placed)
        return placed

    def _put(
        self, envelopes: Sequence[Envelope], rows: Sequence[RowWrite], snapshots: Sequence[Snapshot], receipt: list[str]
    ) -> Sequence[int]:
        """Store them; when the answer is lost, do it again until there is one.

        The second attempt cannot store anything twice: if the first one was carried out, its event ids are in the
        way, and if the server is still at it, the second one waits for it at the index.
        """
        records = list(map(self._mapper.to_stored_event, envelopes))
        deadline = None
        while True:
            try:
                return self._recorder.insert_events(records, rows=rows, snapshots=snapshots, receipt=receipt)
            except ConnectionLost:
                deadline = deadline or time.monotonic() + RESOLVE_SECONDS
            except StoreUnavailable as error:
                if deadline is None:
                    raise
                if time.monotonic() > deadline:
                    raise StoreOutcomeUnknown(
                        f"The answer to an append was lost, and since then: {error.message}",
                        events=tuple(envelope.event_id for envelope in envelopes),
                    ) from error
                time.sleep(0.1)

    def _appended_before(self, envelopes: Sequence[Envelope], error: persistence.IntegrityError) -> list[Envelope]:
        records = [self._mapper.to_stored_event(envelope) for envelope in envelopes]
        stored = self._recorder.select_by_ids([record.event_id for record in records])
        own = find_own(records, stored)
        if own is not None:
            placed = [self._mapper.to_domain_event(record) for record in own]
            self._announce(placed)
            return placed
        streams = sorted({envelope.originator_id for envelope in envelopes})
        raise StreamConflict(f"Another writer was first in {', '.join(streams)}", streams=tuple(streams)) from error

    def _announce(self, placed: Sequence[Envelope]) -> None:
        if placed:
            last = max(envelope.position or 0 for envelope in placed)
            self._own = max(self._own, last)
            self._recorder.note(last)
            self._news.announce(last)

    # --- streams -------------------------------------------------------------------------------------------------
    def load(self, stream: str, *, after: int = 0, upto: int | None = None) -> list[Envelope]:
        return cast(list[Envelope], list(self._events.get(stream, gt=after, lte=upto)))

    def history(self, stream: str, *, after: int = 0, upto: int | None = None) -> Iterator[Fact]:
        # Closed here: an error would keep it, and with it a connection, for as long as somebody keeps the error.
        with closing(self._recorder.select_facts(stream, after, upto)) as pages:
            for page in pages:
                yield from self._mapper.to_facts(page)

    def last(self, stream: str) -> Envelope | None:
        return cast(Envelope | None, next(self._events.get(stream, desc=True, limit=1), None))

    def snapshot(self, stream: str) -> Snapshot | None:
        return self._recorder.select_snapshot(stream)

    # --- the log -------------------------------------------------------------------------------------------------
    def read(
        self, after: int, limit: int = 1000, *, upto: int | None = None, topics: Sequence[str] = ()
    ) -> list[Envelope]:
        self._trust_own_in(after, upto)
        return self._mapper.to_page(
            self._recorder.select_notifications(after, limit, upto, topics, inclusive_of_start=False)
        )

    def raw(
        self, after: int, limit: int = 1000, *, upto: int | None = None, columns: Sequence[str] = ()
    ) -> list[tuple[Any, ...]]:
        self._trust_own_in(after, upto)
        return self._recorder.select_raw(after, limit, upto, columns)

    def pages(self, size: int, *, columns: Sequence[str] = ()) -> Generator[list[tuple[Any, ...]], None, None]:
        self._trust_own()
        return self._recorder.select_pages(size, columns)

    def head(self) -> int:
        return self._trust_own() or self._head()

    def _head(self) -> int:
        head = self._recorder.max_notification_id() or 0
        self._trusted = max(self._trusted, head)
        return head

    def _trust_own_in(self, after: int, upto: int | None) -> None:
        if after < self._own and (upto is None or upto >= self._own):
            self._trust_own()

    def _trust_own(self) -> int:
        """Wait a moment for a transaction that began before this process's last append: who wrote wants to read.

        Returns the head where it had to be looked up, else 0.
        """
        if self._trusted >= self._own or self._database.is_held:
            return 0
        deadline, pause = time.monotonic() + OWN_SECONDS, _SHORTEST_LOOK
        while (head := self._head()) < self._own and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        return head

    def wait(self, after: int, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        pause = _SHORTEST_LOOK
        if timeout > 0:
            self._news.listen()
        while True:
            turn = self._news.turn
            if self._head() > after:
                return True
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            if self._news.heard > max(after, self._trusted):
                pause = min(pause * 2, 0.05)  # it is there, and only a transaction that began earlier is in the way
            else:
                pause = _SHORTEST_LOOK
                self._news.wait(turn, min(LONGEST_LOOK, remaining))
                continue
            time.sleep(min(pause, remaining))

    def held_back(self) -> tuple[int, list[Blocker]]:
        """How many events no reader gets yet, and whose transactions, anywhere in the server, they wait for."""
        return held_back(self._database)

    def close(self) -> None:
        self._news.close()
        self._database.close()
