"""The SQLite file at one moment, for reading only: what an auditor who may not write opens."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from nexus.adapters.stores.sqlite import schema
from nexus.adapters.stores.sqlite.database import Database
from nexus.adapters.stores.sqlite.faults import unavailable
from nexus.adapters.stores.sqlite.written import written
from nexus.domain.ports import Again, Scalar
from nexus.domain.sealing import Written

_MANY: Final = 1000
_OF_VALUES: Final = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG)
"""What a statement that is right ends with if it cannot deal with a value, such as a BLOB where JSON is to be made."""


class SQLiteReading:
    """Implements the `Reading` port. A file that is not there holds nothing, and is not made. For one thread."""

    def __init__(self, path: Path) -> None:
        """Raises `StoreUnavailable` and `SchemaMismatch`."""
        self._database = Database(path, readonly=True)
        self._open = ExitStack()
        self._connection: sqlite3.Connection | None = None
        self._watch: sqlite3.Connection | None = None
        self._version: int | None = None
        self.installation = ""
        if not self._database.exists():
            return
        try:
            connection = self._open.enter_context(self._database.reading())
            if schema.check(connection, self._database.path) == 0:
                return
            # Another connection: in a transaction this one would never see what others write.
            self._watch = self._open.enter_context(self._database.reading())
            self._version = self._data_version()
            connection.execute("BEGIN")
            self._open.callback(connection.rollback)
            self._connection = connection
            # The first SELECT fixes the moment.
            ((self.installation,),) = self.rows("SELECT id FROM installation")
        except BaseException:
            self.close()
            raise

    def rows(
        self, statement: str, params: Mapping[str, Scalar] | None = None, *, lenient: bool = False
    ) -> Iterator[Sequence[Any]]:
        if self._connection is None:
            return
        connection, factory = self._connection, _lenient if lenient else str
        try:
            connection.text_factory = factory
            cursor = connection.execute(statement, params or {})
            while page := cursor.fetchmany(_MANY):
                yield from page
                connection.text_factory = factory  # others may have read meanwhile
        except sqlite3.Error as error:
            raise unavailable(error, self._database.path) from error

    def written(self, after: int, upto: int) -> Iterator[Written]:
        if self._connection is None:
            return
        try:
            yield from written(self._connection, after, upto)
        except sqlite3.Error as error:
            if error.sqlite_errorcode in _OF_VALUES:
                raise ValueError(str(error)) from None
            raise unavailable(error, self._database.path) from error

    def again(self) -> Again | None:
        return None if self._connection is None else Again(partial(SQLiteReading, self._database.path), forks=False)

    def same_moment(self) -> bool:
        """Nothing at all was written since: SQLite has no name for a moment that another process could ask for."""
        return self._data_version() == self._version

    def _data_version(self) -> int | None:
        """Another number whenever another connection has written."""
        if self._watch is None:
            return None
        try:
            ((version,),) = self._watch.execute("PRAGMA data_version")
        except sqlite3.Error as error:
            raise unavailable(error, self._database.path) from error
        return int(version)

    def close(self) -> None:
        self._open.close()
        self._database.close()


def _lenient(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")
