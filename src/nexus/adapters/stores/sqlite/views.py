"""Read models in the SQLite file. Standard library only: `nexus sandbox list` loads this and nothing heavier."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from nexus.adapters.stores import sql
from nexus.adapters.stores.sqlite import schema
from nexus.adapters.stores.sqlite.database import Database
from nexus.domain.ports import RowsWrite, RowWrite, Scalar, Table

_TOGETHER: Final = 20
"""Pages that are filled in by one transaction: each waits for the disk."""


class SQLiteViews:
    """Implements the `ViewStore` port. Thread-safe.

    By itself it opens the file for reading only and finds every view empty where no store was made yet; the store
    gives it the connections that may write.
    """

    def __init__(self, path: Path | Database) -> None:
        self._database = path if isinstance(path, Database) else Database(path, readonly=True)

    def now(self) -> datetime:
        """This machine's clock, see `SQLiteStore.now`."""
        return datetime.now(UTC)

    def query(self, sql: str, params: Mapping[str, Scalar] | None = None) -> list[dict[str, Any]]:
        if self._database.readonly and not self._database.exists():
            return []
        with self._database.reading() as connection:
            if self._database.readonly and schema.check(connection, self._database.path) == 0:
                return []
            cursor = connection.execute(sql, params or {})
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def create(self, tables: Sequence[Table]) -> None:
        with self._database.reading() as connection:
            if not schema.missing(connection, tables):
                return
        with self._database.writing() as connection:
            schema.create(connection, tables)

    def position(self, projection: str) -> int | None:
        if self._database.readonly and not self._database.exists():
            return None
        with self._database.reading() as connection:
            return _position(connection, projection)

    def advance(
        self,
        projection: str,
        expected: int | None,
        position: int,
        rows: Sequence[RowWrite | RowsWrite],
        *,
        durable: bool = True,
    ) -> bool:
        with self._database.writing() as connection:
            if not _move(connection, projection, expected, position):
                return False
            write_rows(connection, rows)
        return True

    def begin(self, tables: Sequence[Table], projection: str, *, indexed: bool = True, keyed: bool = True) -> None:
        """A key cannot be made later here: tables always have theirs."""
        with self._database.writing() as connection:
            for table in tables:
                connection.execute(f"DROP TABLE IF EXISTS {sql.identifier(table.name)}")
            schema.create(connection, tables, indexed=indexed)
            _forget(connection, [projection])
            _move(connection, projection, None, 0)

    def fill(self, table: Table, projection: str, pages: Iterable[tuple[int, Sequence[tuple[Scalar, ...]]]]) -> bool:
        names = ", ".join(map(sql.identifier, table.columns))
        insert = f"INSERT INTO {sql.identifier(table.name)} ({names}) VALUES ({', '.join('?' * len(table.columns))})"
        left, position = iter(pages), 0
        while some := list(islice(left, _TOGETHER)):  # made before the file is kept from others
            upto = some[-1][0]
            with self._database.writing() as connection:
                if not _move(connection, projection, position, upto):
                    return False
                connection.executemany(insert, chain.from_iterable(rows for _, rows in some))
            position = upto
        return True

    def complete(self, tables: Sequence[Table]) -> None:
        with self._database.writing() as connection:
            schema.index(connection, tables)

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
        with self._database.writing() as connection:
            # From here on nobody else can write, and readers see all that was committed: `finish` sees the very end.
            if _position(connection, built) != expected:
                return None
            position, rows = finish(expected)
            write_rows(connection, rows)
            for aside, live in renames.items():
                connection.execute(f"DROP TABLE IF EXISTS {sql.identifier(live)}")
                connection.execute(f"ALTER TABLE {sql.identifier(aside)} RENAME TO {sql.identifier(live)}")
            _forget(connection, [built, projection, *forget])
            connection.execute("INSERT INTO projection_positions VALUES (?, ?)", (projection, position))
        return position

    def drop(self, tables: Sequence[str], forget: Sequence[str]) -> None:
        with self._database.writing() as connection:
            for table in tables:
                connection.execute(f"DROP TABLE IF EXISTS {sql.identifier(table)}")
            _forget(connection, forget)

    def close(self) -> None:
        self._database.close()


def write_rows(connection: sqlite3.Connection, rows: Sequence[RowWrite | RowsWrite]) -> None:
    """Write rows inside the caller's transaction."""
    for statement, parameters in sql.writes(rows):
        if len(parameters) == 1:
            connection.execute(statement, parameters[0])
        else:
            connection.executemany(statement, parameters)


def _position(connection: sqlite3.Connection, projection: str) -> int | None:
    row = connection.execute("SELECT position FROM projection_positions WHERE projection = ?", (projection,)).fetchone()
    return None if row is None else int(row[0])


def _forget(connection: sqlite3.Connection, projections: Sequence[str]) -> None:
    connection.executemany("DELETE FROM projection_positions WHERE projection = ?", [(name,) for name in projections])


def _move(connection: sqlite3.Connection, projection: str, expected: int | None, position: int) -> bool:
    """Compare and set: at most one of several projectors that read the same page gets to write it."""
    if expected is None:
        moved = connection.execute(
            "INSERT INTO projection_positions VALUES (?, ?) ON CONFLICT (projection) DO NOTHING", (projection, position)
        )
    else:
        moved = connection.execute(
            "UPDATE projection_positions SET position = ? WHERE projection = ? AND position = ?",
            (position, projection, expected),
        )
    return moved.rowcount == 1
