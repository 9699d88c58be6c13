"""A Postgres database at one moment, for reading only: what an auditor whose role may only SELECT opens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import psycopg
from psycopg import sql

from nexus.adapters.stores.postgres import statements
from nexus.adapters.stores.postgres.address import Address
from nexus.adapters.stores.postgres.database import Database
from nexus.adapters.stores.postgres.faults import unavailable
from nexus.adapters.stores.postgres.written import written
from nexus.domain.errors import StoreError
from nexus.domain.ports import Again, Scalar
from nexus.domain.sealing import Written

_MANY: Final = 1000
_IDLE: Final = "10min"
"""How long whoever reads may pause, say at a pager, before the server ends the transaction."""
_RIGHTS: Final = "An auditor's role needs SELECT on schema_migrations, installation, events and seals, and no more."
_OWN_FUNCTIONS: Final = (
    "SELECT pg_catalog.set_config('search_path', pg_catalog.concat('pg_catalog, ',"
    " pg_catalog.current_setting('search_path')), false)"
)
"""First of all Postgres's own, whatever the role's or the database's settings say."""
_IN_ORDER: Final = "SET enable_sort = off"
"""Log and seals are read along their primary keys. Without statistics, after a restore, the planner takes a stretch
for a few rows, which it would rather sort: on disk, and at two thirds of the pace."""
_MAY_EXPORT: Final = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_export_snapshot()', 'EXECUTE')"
_EXPORT: Final = "SELECT pg_catalog.pg_export_snapshot()"


class PostgresReading:
    """Implements the `Reading` port. For one thread.

    One REPEATABLE READ, READ ONLY transaction. It has no transaction id, so no reader of the log waits for it.
    """

    def __init__(self, url: str, snapshot: str = "") -> None:
        """Raises `StoreUnavailable`, `SchemaMismatch`, `StoreRestored`, and `ConfigurationError` for a bad URL.

        `snapshot` is the name of another reading's moment.
        """
        self._url = url
        self._address = Address(url)
        self._database = Database(url, max_connections=1)
        self._link = self._database.connect()
        self._count = 0
        try:
            self._link.execute(_OWN_FUNCTIONS)
            self._link.execute(_IN_ORDER)
            self._link.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE}'")
            self._link.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            if snapshot:
                self._link.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
        except psycopg.Error as error:
            self._link.close()
            raise unavailable(error, self._address) from None

    @property
    def installation(self) -> str:
        return self._database.installation

    def rows(
        self,
        statement: str,
        params: Mapping[str, Scalar] | None = None,
        *,
        lenient: bool = False,
    ) -> Iterator[Sequence[Any]]:
        self._count += 1
        numbered, names = statements.portable(statement)
        try:
            with psycopg.RawServerCursor(self._link, f"rows_{self._count}") as cursor:
                cursor.execute(numbered, [(params or {})[name] for name in names])
                while page := cursor.fetchmany(_MANY):
                    yield from page
        except psycopg.Error as error:
            raise self._told(error) from None

    def written(self, after: int, upto: int) -> Iterator[Written]:
        try:
            yield from written(self._link, after, upto)
        except psycopg.Error as error:
            raise self._told(error) from None

    def again(self) -> Again | None:
        try:
            ((may,),) = self._link.execute(_MAY_EXPORT)
            if not may:  # to try would end the transaction
                return None
            ((snapshot,),) = self._link.execute(_EXPORT)
        except psycopg.Error as error:
            raise self._told(error) from None
        return Again(partial(PostgresReading, self._url, snapshot), forks=True)

    def same_moment(self) -> bool:
        return True

    def _told(self, error: psycopg.Error) -> StoreError:
        told = unavailable(error, self._address)
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return StoreError(str(told), hint=_RIGHTS)
        return told

    def close(self) -> None:
        self._link.close()
        self._database.close()
