"""Read models in Postgres. Needs the driver alone: the event sourcing library stays with the store."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, groupby, islice
from typing import Any, Final

import psycopg

from nexus.adapters.stores import sql
from nexus.adapters.stores.postgres import schema, statements
from nexus.adapters.stores.postgres.address import LOCK_SECONDS
from nexus.adapters.stores.postgres.database import Database
from nexus.adapters.stores.postgres.link import Link
from nexus.adapters.stores.postgres.schema import ALL
from nexus.domain.errors import StoreUnavailable
from nexus.domain.ports import RowsWrite, RowWrite, Scalar, Table

_SWAP_ATTEMPTS: Final = 60
_SWAP_LOCK_SECONDS: Final = 0.3
"""How long a swap may hold up writers and readers before it lets them pass and tries again."""
_SWAP_AUTOVACUUM_SECONDS: Final = 1.3
"""The same, now and then. An autovacuum of a long log takes minutes, and makes way for whoever has waited for it for
`deadlock_timeout`, which is 1 s unless somebody changed it."""
_SWAP_LONGER_EVERY: Final = 4
_UNHURRIED: Final = "SET LOCAL synchronous_commit = off"
"""For what a crash of the server may take back: nobody waits for the disk."""
_COPIED: Final[Mapping[str, str]] = {"text": "text", "integer": "int8", "real": "float8"}
_TOGETHER: Final = 40
"""Pages that are filled in by one transaction."""


class PostgresViews:
    """Implements the `ViewStore` port. Thread-safe.

    Sees the rows of every tenant; `of_tenant` gives one that sees those of one tenant, by the database's own rules.
    """

    def __init__(self, database: Database | str, *, scope: str = ALL) -> None:
        self._database = database if isinstance(database, Database) else Database(database)
        self._scope = scope

    def of_tenant(self, tenant_id: str) -> PostgresViews:
        """The same views by row-level security: rows of other tenants are not there, whatever is asked."""
        return PostgresViews(self._database, scope=f"tenant:{tenant_id}")

    def now(self) -> datetime:
        """The server's clock, see `PostgresStore.now`."""
        return self._database.now()

    def query(self, sql: str, params: Mapping[str, Scalar] | None = None) -> list[dict[str, Any]]:
        statement, names = statements.portable(sql)
        parameters = [(params or {})[name] for name in names]
        return self._database.ask(lambda link: link.run_named(statement, parameters), self._scope)

    def create(self, tables: Sequence[Table]) -> None:
        if not self._database.ask(lambda link: schema.missing(link, tables)):
            return
        with self._database.using() as link:
            schema.create(link, tables)

    def position(self, projection: str) -> int | None:
        return self._database.ask(lambda link: _position(link, projection))

    def advance(
        self,
        projection: str,
        expected: int | None,
        position: int,
        rows: Sequence[RowWrite | RowsWrite],
        *,
        durable: bool = True,
    ) -> bool:
        with self._database.using() as link, link.transaction():
            if not durable:
                link.run(_UNHURRIED)
            if not _move(link, projection, expected, position):
                return False
            write_rows(link, rows)
        return True

    def begin(self, tables: Sequence[Table], projection: str, *, indexed: bool = True, keyed: bool = True) -> None:
        with self._database.using() as link, link.transaction():
            link.run(_UNHURRIED)
            schema.replace(link, tables, indexed=indexed, keyed=keyed)
            _forget(link, [projection])
            link.execute("INSERT INTO projection_positions VALUES (%s, 0)", (projection,))

    def fill(self, table: Table, projection: str, pages: Iterable[tuple[int, Sequence[tuple[Scalar, ...]]]]) -> bool:
        """By COPY in the server's own form, the quickest way in; it takes rows while the next page is made."""
        names = ", ".join(map(sql.identifier, table.columns))
        copy = f"COPY {sql.identifier(table.name)} ({names}) FROM STDIN (FORMAT BINARY)"
        types = [_COPIED[kind] for kind in table.columns.values()]
        left, position = iter(pages), 0
        with self._database.using() as link, contextlib.suppress(_Overtaken):
            for first in left:
                with link.transaction():
                    link.run(_UNHURRIED)
                    with link.cursor() as cursor, cursor.copy(copy) as into:
                        into.set_types(types)
                        for upto, rows in chain([first], islice(left, _TOGETHER - 1)):  # noqa: B007 - the last counts
                            for row in rows:
                                into.write_row(row)
                    if not _move(link, projection, position, upto):
                        raise _Overtaken
                position = upto
            return True
        return False

    def complete(self, tables: Sequence[Table]) -> None:
        with (
            self._database.using() as link,
            self._database.using() as other,
            contextlib.suppress(psycopg.errors.UndefinedTable),
        ):
            schema.index(link, other, tables)

    def swap(
        self,
        renames: Mapping[str, str],
        *,
        built: str,
        expected: int,
        projection: str,
        forget: Sequence[str],
        finish: Callable[[int], tuple[int, Sequence[RowWrite | RowsWrite]]],
    ) -> int | None:
        for attempt in range(_SWAP_ATTEMPTS):
            try:
                with self._database.holding() as link, link.transaction():
                    longer = attempt % _SWAP_LONGER_EVERY == _SWAP_LONGER_EVERY - 1
                    _lock_out(link, renames.values(), _SWAP_AUTOVACUUM_SECONDS if longer else _SWAP_LOCK_SECONDS)
                    if _position(link, built) != expected:
                        return None
                    position, rows = finish(expected)
                    write_rows(link, rows)
                    _take_the_place(link, renames)
                    _forget(link, [built, projection, *forget])
                    link.execute("INSERT INTO projection_positions VALUES (%s, %s)", (projection, position))
                return position
            except _HeldUp:
                time.sleep(random.random() * 0.02 * min(attempt + 1, 20))
        raise StoreUnavailable(
            f"Other sessions never let go of {', '.join(renames.values())}",
            hint="Look for transactions that stay open (`nexus doctor`), then rebuild again.",
        )

    def drop(self, tables: Sequence[str], forget: Sequence[str]) -> None:
        with self._database.using() as link, link.transaction():
            for table in tables:
                link.execute(f"DROP TABLE IF EXISTS {sql.identifier(table)}")
            _forget(link, forget)

    def close(self) -> None:
        self._database.close()


# --- writing rows ----------------------------------------------------------------------------------------------------
def write_rows(link: Link, rows: Sequence[RowWrite | RowsWrite]) -> None:
    """Write rows inside the caller's transaction, in their order."""
    for shape, group in groupby(rows, key=sql.shape):
        for some in _runs(group):
            if shape.known or len(some) == 1:
                for parameters in some:
                    link.run(statements.write(shape), parameters)
            else:
                types = _types(link, shape)
                link.run(statements.bulk(shape, types), list(map(statements.array, zip(*some, strict=True))))


def _runs(rows: Iterable[RowWrite | RowsWrite]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Parameters of neighbouring rows; a new run begins where a key comes again, for a statement writes it once."""
    keys: set[tuple[Scalar, ...]] = set()
    run: list[tuple[Any, ...]] = []
    for row in rows:
        if isinstance(row, RowsWrite):
            if run:
                yield run
                keys, run = set(), []
            yield row.rows
            continue
        key = tuple(row.key.values())
        if key in keys:
            yield run
            keys, run = set(), []
        keys.add(key)
        run.append(sql.parameters(row))
    if run:
        yield run


def _types(link: Link, shape: sql.Shape) -> tuple[str, ...]:
    """The columns' types: arrays need theirs said. Asked each time, for a rebuilt table may have others."""
    table, key, columns, *_ = shape
    found = dict(
        link.execute(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (sql.identifier(table),),
        ).fetchall()
    )
    try:
        return tuple(found[name] for name in (*key, *(columns or ())))
    except KeyError as missing:
        raise psycopg.errors.UndefinedColumn(f"column {missing} of {table} does not exist") from None


# --- positions -------------------------------------------------------------------------------------------------------
def _position(link: Link, projection: str) -> int | None:
    row = link.execute("SELECT position FROM projection_positions WHERE projection = %s", (projection,)).fetchone()
    return None if row is None else int(row[0])


def _forget(link: Link, projections: Sequence[str]) -> None:
    link.execute("DELETE FROM projection_positions WHERE projection = ANY(%s)", (list(projections),))


def _move(link: Link, projection: str, expected: int | None, position: int) -> bool:
    """Compare and set: at most one of several projectors that read the same page gets to write it."""
    if expected is None:
        moved = link.execute(
            "INSERT INTO projection_positions VALUES (%s, %s) ON CONFLICT (projection) DO NOTHING",
            (projection, position),
        )
    else:
        moved = link.execute(
            "UPDATE projection_positions SET position = %s WHERE projection = %s AND position = %s",
            (position, projection, expected),
        )
    return moved.rowcount == 1


# --- swapping --------------------------------------------------------------------------------------------------------
class _Overtaken(Exception):
    """Another wrote with the same key."""


class _HeldUp(Exception):
    """Others did not let go in time. Nothing was changed."""


def _lock_out(link: Link, tables: Iterable[str], seconds: float) -> None:
    """Keep appends away, then readers and writers of these tables.

    An append holds its lock on the events to its end: once this is granted, whatever was begun is committed.
    """
    link.execute(f"SET LOCAL lock_timeout = {int(seconds * 1000)}")
    try:
        link.execute("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE")
        for table in tables:
            if link.execute("SELECT to_regclass(%s)", (sql.identifier(table),)).fetchone() != (None,):
                link.execute(f"LOCK TABLE {sql.identifier(table)} IN ACCESS EXCLUSIVE MODE")
    except psycopg.errors.LockNotAvailable:
        raise _HeldUp from None
    link.execute(f"SET LOCAL lock_timeout = {LOCK_SECONDS * 1000}")


def _take_the_place(link: Link, renames: Mapping[str, str]) -> None:
    for aside, live in renames.items():
        link.execute(f"DROP TABLE IF EXISTS {sql.identifier(live)}")
        schema.close(link, aside)
        link.execute(f"ALTER TABLE {sql.identifier(aside)} RENAME TO {sql.identifier(live)}")
