"""The event sourcing library's SQLite recorder, with our columns, our transactions and our connections."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, cast
from uuid import UUID

from eventsourcing.persistence import IntegrityError, StoredEvent
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteCursor, SQLiteDatastore

from nexus.adapters.stores import sql
from nexus.adapters.stores.recording import EnvelopeRecord, PlacedRecord, placed
from nexus.adapters.stores.sqlite.database import Database
from nexus.adapters.stores.sqlite.faults import unavailable
from nexus.adapters.stores.sqlite.views import write_rows
from nexus.domain.ports import RowWrite, Snapshot
from nexus.domain.values import to_text

_COLUMNS: Final = (
    "position, event_id, originator_id, originator_version, topic, schema_version, state, occurred_at, recorded_at,"
    " actor, tenant_id, agent_id, command, correlation_id, causation_id, origin"
)
_FACTS: Final = "topic, schema_version, state, occurred_at, originator_version"
_INSERT: Final = (
    "INSERT INTO events (event_id, originator_id, originator_version, topic, schema_version, state, occurred_at,"
    " recorded_at, actor, tenant_id, agent_id, command, correlation_id, causation_id, origin)"
    # Where the clock was set back, the order of times stays that of the positions.
    " VALUES (?, ?, ?, ?, ?, ?, ?,"
    " max(?, ifnull((SELECT recorded_at FROM events ORDER BY position DESC LIMIT 1), '')), ?, ?, ?, ?, ?, ?, ?)"
    " RETURNING position, recorded_at"
)
_LARGEST: Final = (1 << 63) - 1
_SNAPSHOT: Final = (
    "INSERT INTO snapshots VALUES (?, ?, ?, ?) ON CONFLICT (originator_id) DO UPDATE"
    " SET originator_version = excluded.originator_version, schema_version = excluded.schema_version,"
    " state = excluded.state WHERE snapshots.originator_version <= excluded.originator_version"
)


_TAKEN: Final = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_TRIGGER,
}
"""What another writer's event leads to: its version, or its id, is there already. A trigger says so first."""


class Datastore(SQLiteDatastore):
    """The library's datastore on our connections.

    Its own transactions begin without the write lock, so two that read before they write fail at once; its pool
    does not survive a fork, and keeps readers waiting behind writers that wait.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.single_row_tracking = True
        self.originator_id_type = "text"

    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[SQLiteCursor]:
        try:
            with self.database.writing() if commit else self.database.reading() as connection:
                cursor = connection.cursor()
                try:
                    yield SQLiteCursor(cursor)
                finally:
                    cursor.close()
        except sqlite3.IntegrityError as error:
            raise IntegrityError(error) from error

    def close(self) -> None:
        self.database.close()

    def __del__(self) -> None:
        """The library closes here; ours belongs to the store, whose views may outlive this."""


class Recorder(SQLiteApplicationRecorder):
    """Writes envelopes, read models' rows and snapshots in one transaction; reads them by stream and by position."""

    def __init__(self, datastore: Datastore) -> None:
        super().__init__(datastore, events_table_name="events")
        self.select_max_notification_id_statement = "SELECT max(position) FROM events"

    def construct_create_table_statements(self) -> list[str]:
        """None: `schema` makes the tables, by numbered migrations."""
        return []

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        """As the library's, without its cursor in between."""
        try:
            with cast(Datastore, self.datastore).database.writing() as connection:
                return _insert(connection, stored_events, **kwargs)
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode not in _TAKEN:
                # Whoever takes this for another writer's event would decide anew, to the same end, again and again.
                raise unavailable(error, cast(Datastore, self.datastore).database.path) from error
            raise IntegrityError(error) from error

    def _insert_events(self, c: SQLiteCursor, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        return _insert(c.sqlite_cursor.connection, stored_events, **kwargs)

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[PlacedRecord]:
        statement, parameters = _of_stream(_COLUMNS, cast(str, originator_id), gt, lte)
        if desc:
            statement += " DESC"
        if limit is not None:
            statement += " LIMIT ?"
            parameters.append(limit)
        return self._select(statement, parameters)

    def select_facts(self, stream: str, after: int, upto: int | None) -> list[tuple[str, int, bytes, str, int]]:
        """Topic, schema version, state, time and version of a stream's events."""
        statement, parameters = _of_stream(_FACTS, stream, after, upto)
        with cast(Datastore, self.datastore).database.reading() as connection:
            return connection.execute(statement, parameters).fetchall()

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[PlacedRecord]:
        conditions, parameters = [], list[Any]()
        if start is not None:
            conditions.append("position >= ?" if inclusive_of_start else "position > ?")
            parameters.append(start)
        if stop is not None:
            conditions.append("position <= ?")
            parameters.append(stop)
        if topics:
            conditions.append(f"topic IN ({', '.join('?' * len(topics))})")
            parameters.extend(topics)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return self._select(
            f"SELECT {_COLUMNS} FROM events{where} ORDER BY position LIMIT ?",
            [*parameters, limit],
        )

    def select_raw(
        self, after: int, limit: int, upto: int | None, columns: Sequence[str] = ()
    ) -> list[tuple[Any, ...]]:
        """Rows by position as they are: after < position <= upto."""
        names = ", ".join(map(sql.identifier, columns)) or _COLUMNS
        statement = f"SELECT {names} FROM events WHERE position > ? AND position <= ? ORDER BY position LIMIT ?"
        with cast(Datastore, self.datastore).database.reading() as connection:
            cursor = connection.execute(statement, (after, upto if upto is not None else _LARGEST, limit))
            return cursor.fetchall()

    def select_by_ids(self, event_ids: Sequence[str]) -> dict[str, PlacedRecord]:
        """The stored ones among these events, by event id."""
        found: dict[str, PlacedRecord] = {}
        for start in range(0, len(event_ids), 500):
            some = event_ids[start : start + 500]
            marks = ", ".join("?" * len(some))
            for record in self._select(f"SELECT {_COLUMNS} FROM events WHERE event_id IN ({marks})", some):
                found[record.event_id] = record
        return found

    def _select(self, statement: str, parameters: Sequence[Any]) -> list[PlacedRecord]:
        with cast(Datastore, self.datastore).database.reading() as connection:
            return [placed(row) for row in connection.execute(statement, parameters)]


def _insert(
    connection: sqlite3.Connection,
    events: Sequence[StoredEvent],
    *,
    rows: Sequence[RowWrite] = (),
    snapshots: Sequence[Snapshot] = (),
    receipt: list[str] | None = None,
) -> Sequence[int]:
    """Returns the positions; `receipt` is given the time of recording of each event."""
    now = to_text(datetime.now(UTC))
    positions = []
    for event in events:
        parameters = _parameters(cast(EnvelopeRecord, event), now)
        ((position, recorded_at),) = connection.execute(_INSERT, parameters).fetchall()
        positions.append(position)
        if receipt is not None:
            receipt.append(recorded_at)
    for kept in snapshots:
        connection.execute(_SNAPSHOT, (kept.originator_id, kept.originator_version, kept.schema_version, kept.state))
    if rows:
        write_rows(connection, rows)
    return positions


def _of_stream(columns: str, stream: str, after: int | None, upto: int | None) -> tuple[str, list[Any]]:
    statement = f"SELECT {columns} FROM events WHERE originator_id = ?"
    parameters: list[Any] = [stream]
    if after is not None:
        statement += " AND originator_version > ?"
        parameters.append(after)
    if upto is not None:
        statement += " AND originator_version <= ?"
        parameters.append(upto)
    return f"{statement} ORDER BY originator_version", parameters


def _parameters(event: EnvelopeRecord, recorded_at: str) -> tuple[Any, ...]:
    return (
        event.event_id,
        event.originator_id,
        event.originator_version,
        event.topic,
        event.schema_version,
        event.state,
        event.occurred_at,
        recorded_at,
        event.actor,
        event.tenant_id,
        event.agent_id,
        event.command,
        event.correlation_id,
        event.causation_id,
        event.origin,
    )
