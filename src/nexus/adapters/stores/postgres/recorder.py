"""The event sourcing library's recorder over our statements: positions without a table lock.

Not a subclass of its Postgres recorder: that one brings a pool, composite types, DDL at each start and ten attempts
at everything, and locks the table for each append. ADR 0030 has the figures.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final, Never, cast
from uuid import UUID

import psycopg
from eventsourcing.persistence import ApplicationRecorder, IntegrityError, StoredEvent

from nexus.adapters.stores import sql
from nexus.adapters.stores.postgres import statements
from nexus.adapters.stores.postgres.database import Database
from nexus.adapters.stores.postgres.link import Link, Parameter
from nexus.adapters.stores.postgres.schema import ORDINAL_BITS
from nexus.adapters.stores.postgres.statements import COLUMNS, FEW, GIVEN, HORIZON, LIMIT, numbered
from nexus.adapters.stores.recording import EnvelopeRecord, PlacedRecord, placed
from nexus.domain.errors import StoreError
from nexus.domain.ports import RowWrite, Snapshot

_FACTS: Final = "topic, schema_version, state, occurred_at, originator_version"

MOST_EVENTS: Final = 1 << ORDINAL_BITS
"""In one append: a position has room for so many per transaction."""
_STRETCH: Final = 20_000
"""Events that one query asks for where all are wanted: none holds up what the server has to clean up for long."""
MOST_BYTES: Final = 16 * 1024 * 1024
"""Of all payloads of one append. Events hold digests, sizes and reasons; whoever comes here does not."""


class Recorder(ApplicationRecorder):
    """Writes envelopes, read models' rows and snapshots in one transaction; reads them by stream and by position."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- writing -------------------------------------------------------------------------------------------------
    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        rows: Sequence[RowWrite] = (),
        snapshots: Sequence[Snapshot] = (),
        receipt: list[str] | None = None,
        **_: Any,
    ) -> Sequence[int]:
        """Returns the positions; `receipt` is given the time of recording of each event.

        Raises `IntegrityError` when a version or an event id is taken, or a deadlock was broken at our cost.
        """
        events = cast(Sequence[EnvelopeRecord], stored_events)
        _check(events)
        at_once, one_by_one = _distinct(rows) if events else ((), rows)
        statement = statements.append(len(events), len(snapshots), tuple(map(sql.shape, at_once))) if events else ""
        with self._database.using() as link:
            parameters = [*_more_parameters(snapshots, at_once), *_event_parameters(events, link.epoch)]
            try:
                found = self._insert(link, statement, parameters, one_by_one)
            except psycopg.errors.UniqueViolation as error:
                if error.diag.constraint_name == "events_pkey":
                    raise _position_taken() from error
                raise IntegrityError(error) from None
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as error:
                raise IntegrityError(error) from None
        found.sort()
        if receipt is not None:
            receipt.extend([moment for _, moment in found])
        return [position for position, _ in found]

    def _insert(
        self, link: Link, statement: str, parameters: Sequence[Parameter], more: Sequence[RowWrite]
    ) -> list[tuple[int, str]]:
        if not more:
            return _receipt(link, statement, parameters)
        with link.transaction():
            found = _receipt(link, statement, parameters)
            for row in more:
                link.run(statements.write(sql.shape(row)), sql.parameters(row))
        return found

    # --- reading -------------------------------------------------------------------------------------------------
    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[PlacedRecord]:
        statement, parameters = _of_stream(COLUMNS, originator_id, gt, lte)
        statement += " ORDER BY originator_version" + (" DESC" if desc else "")
        if limit is not None:
            statement += " LIMIT %s::bigint"
            parameters.append(limit)
        return list(map(placed, self._rows(statement, parameters)))

    def select_facts(
        self, stream: str, after: int, upto: int | None
    ) -> Generator[list[tuple[str, int, bytes, str, int]], None, None]:
        """Topic, schema version, state, time and version of a stream's events, in pages."""
        statement, parameters = _of_stream(_FACTS, stream, after, upto)
        statement += " ORDER BY originator_version"
        if after:  # what came since a snapshot: too little for the server to be at work meanwhile
            yield self._rows(statement, parameters)
        else:
            yield from self._database.ask_for_pages(lambda link: link.pages(numbered(statement), parameters))

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[PlacedRecord]:
        return list(map(placed, self._select_log(start, limit, stop, topics, ">=" if inclusive_of_start else ">")))

    def select_raw(
        self, after: int, limit: int, upto: int | None, columns: Sequence[str] = ()
    ) -> list[tuple[Any, ...]]:
        """The columns of events by position, as they are stored; the position first."""
        return self._select_log(after, limit, upto, (), ">", ", ".join(map(sql.identifier, columns)) or COLUMNS)

    def select_pages(self, size: int, columns: Sequence[str]) -> Generator[list[tuple[Any, ...]], None, None]:
        """What `select_raw` returns of the whole log, page by page."""
        names, last, found = ", ".join(map(sql.identifier, columns)) or COLUMNS, 0, _STRETCH

        def select(link: Link) -> Iterator[list[tuple[Any, ...]]]:
            conditions, parameters = self._trusted(link)
            where = " AND ".join([*conditions, "position > %s::bigint"])
            statement = f"SELECT {names} FROM events WHERE {where} ORDER BY position LIMIT {LIMIT}"
            return link.pages(numbered(statement), [*parameters, last, _STRETCH], size)

        while found >= _STRETCH:
            found = 0
            for page in self._database.ask_for_pages(select):
                found, last = found + len(page), page[-1][0]
                yield page
            self.note(last)

    def _select_log(
        self,
        start: int | None,
        limit: int,
        stop: int | None,
        topics: Sequence[str],
        beyond: str,
        columns: str = COLUMNS,
    ) -> list[tuple[Any, ...]]:
        def select(link: Link) -> list[tuple[Any, ...]]:
            conditions, parameters = self._trusted(link)
            if start is not None:
                conditions.append(f"position {beyond} %s::bigint")
                parameters.append(start)
            if stop is not None:
                conditions.append("position <= %s::bigint")
                parameters.append(stop)
            if topics:
                conditions.append("topic = ANY(%s::text[])")
                parameters.append(statements.array(topics))
            where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
            statement = f"SELECT {columns} FROM events{where} ORDER BY position LIMIT {LIMIT}"
            return link.run(numbered(statement), [*parameters, limit], binary=True)

        found = self._database.ask(select)
        if found:
            self.note(found[-1][0])
        return found

    def max_notification_id(self) -> int | None:
        def select(link: Link) -> int | None:
            conditions, parameters = self._trusted(link)
            where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
            head: int | None
            ((head,),) = link.run(numbered(f"SELECT max(position) FROM events{where}"), parameters)
            return head

        found = self._database.ask(select)
        if found is not None:
            self.note(found)
        return found

    def select_by_ids(self, event_ids: Sequence[str]) -> dict[str, PlacedRecord]:
        """The stored ones among these events, by event id."""
        statement = f"SELECT {COLUMNS} FROM events WHERE event_id = ANY(%s::text[])"
        found = map(placed, self._rows(statement, [statements.array(event_ids)]))
        return {record.event_id: record for record in found}

    def select_snapshot(self, originator_id: str) -> Snapshot | None:
        found = self._rows(
            "SELECT originator_id, originator_version, schema_version, state FROM snapshots WHERE originator_id = %s",
            [originator_id],
        )
        return Snapshot(*found[0]) if found else None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Never:
        """The library's own way of following: ours is `PostgresStore.wait` and `read`, which outlive an outage."""
        raise TypeError("follow this store by its `wait` and `read`")

    def note(self, position: int) -> None:
        """This position is known to be stored: from now on a log without it is refused."""
        if position > self._database.seen:
            self._database.seen = position

    def _rows(self, statement: str, parameters: Sequence[Parameter]) -> list[tuple[Any, ...]]:
        return self._database.ask(lambda link: link.run(numbered(statement), parameters, binary=True))

    def _trusted(self, link: Link) -> tuple[list[str], list[Parameter]]:
        """Where appends are locked out, all that is there can be trusted; else what is below the horizon."""
        if self._database.is_held:
            return [], []
        return [f"position < {HORIZON}"], [link.epoch]


def _receipt(link: Link, statement: str, parameters: Sequence[Parameter]) -> list[tuple[int, str]]:
    """Position and time of recording of each event that the statement stored."""
    if not statement:
        return []
    answer = link.send(statement, parameters)
    return [
        (int(answer.get_value(row, 0) or 0), (answer.get_value(row, 1) or b"").decode())
        for row in range(answer.ntuples)
    ]


def _of_stream(columns: str, stream: UUID | str, after: int | None, upto: int | None) -> tuple[str, list[Parameter]]:
    statement = f"SELECT {columns} FROM events WHERE originator_id = %s"
    parameters: list[Parameter] = [str(stream)]
    if after is not None:
        statement += " AND originator_version > %s::bigint"
        parameters.append(after)
    if upto is not None:
        statement += " AND originator_version <= %s::bigint"
        parameters.append(upto)
    return statement, parameters


def _check(events: Sequence[EnvelopeRecord]) -> None:
    if len(events) > MOST_EVENTS:
        raise ValueError(f"{len(events)} events in one append; there is room for {MOST_EVENTS}")
    size = sum(len(event.state) for event in events)
    if size > MOST_BYTES:
        raise ValueError(f"{size} bytes of events in one append; at most {MOST_BYTES} are taken")


def _distinct(rows: Sequence[RowWrite]) -> tuple[Sequence[RowWrite], Sequence[RowWrite]]:
    """Rows for the append's own statement, which may write each row once, and those that have to come after it."""
    if not rows:
        return (), ()
    keys = {(row.table, *row.key.values()) for row in rows}
    return (rows, ()) if len(keys) == len(rows) else ((), rows)


def _event_parameters(events: Sequence[EnvelopeRecord], epoch: int) -> list[Parameter]:
    if len(events) <= FEW:
        values: list[Parameter] = []
        for event in events:
            values.append(epoch)
            values.extend(_given(vars(event)))
        return values
    columns = zip(*(_given(vars(event)) for event in events), strict=True)
    return [epoch, *map(statements.array, columns)]


_given: Final = itemgetter(*GIVEN)


def _more_parameters(snapshots: Sequence[Snapshot], rows: Sequence[RowWrite]) -> list[Parameter]:
    values: list[Parameter] = []
    for kept in snapshots:
        values += [kept.originator_id, kept.originator_version, kept.schema_version, kept.state]
    for row in rows:
        values.extend(sql.parameters(row))
    return values


def _position_taken() -> StoreError:
    return StoreError(
        "A position that this append was given is in use already",
        hint="The log was restored while it was in use. Stop all processes, then run `nexus migrate`.",
    )
