"""Making and checking the tables: numbered migrations under one lock, and the tables of read models."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg

from nexus.adapters.stores import sql
from nexus.adapters.stores.postgres.address import Address
from nexus.adapters.stores.postgres.faults import unavailable
from nexus.domain.errors import ConfigurationError, SchemaMismatch, StoreError, StoreRestored, StoreUnavailable
from nexus.domain.ports import Table
from nexus.domain.validation import shown

if TYPE_CHECKING:
    from nexus.adapters.stores.postgres.link import Link

Connection = psycopg.Connection[tuple[Any, ...]]

_FILES: Final = sorted(Path(__file__).with_name("migrations").glob("[0-9]*.sql"))
VERSION: Final = int(_FILES[-1].name[:4])
"""Number of the newest file in `migrations`."""

ORDINAL_BITS: Final = 12
"""A position's low bits count the events of one transaction, the others are its transaction id (plus the epoch)."""

SCOPE: Final = "nexus.scope"
"""Session setting that the views' row-level security asks: `all`, or `tenant:` and a tenant's id."""
ALL: Final = "all"

_LOCK: Final = 0x4E455855
_LOCK_WAIT: Final = "120s"

_TYPES: Final = {"text": 'text COLLATE "C"', "integer": "bigint", "real": "double precision"}
_VERSIONS: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
  version integer PRIMARY KEY,
  name text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""
_STATE: Final = f"""
SELECT (SELECT max(version) FROM schema_migrations), id, epoch, pg_is_in_recovery(), clock_timestamp(),
  (SELECT max(position) FROM events) >> {ORDINAL_BITS} >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint + epoch,
  %s::bigint = 0 OR EXISTS (SELECT FROM events WHERE position = %s)
FROM installation"""


@dataclass(frozen=True, slots=True)
class Installation:
    """What a new connection found."""

    id: str
    epoch: int
    clock: datetime


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a migration did."""

    version: int
    applied: tuple[str, ...]
    """Names of the files that were carried out, oldest first."""
    epoch_raised: bool
    """Whether the log came from a cluster that had counted further, so that positions go on from there."""


# --- checking ------------------------------------------------------------------------------------------------------
def inspect(connection: Connection, address: Address, seen: int = 0) -> Installation:
    """The database as an ordinary process needs it; raises what keeps it from working.

    `seen` is a position that this process knows to be stored: a log without it is not the log that it was.
    """
    try:
        row = connection.execute(_STATE, (seen, seen)).fetchone()
    except psycopg.errors.UndefinedTable:
        raise SchemaMismatch(f"The database {address} has no tables of Nexus yet") from None
    except psycopg.errors.UndefinedColumn:
        raise _mismatch(_version(connection) or 0, address) from None
    if row is None:
        raise SchemaMismatch(f"The database {address} was never prepared to the end")
    version, name, epoch, standby, clock, counts_less, has_seen = row
    if version != VERSION:
        raise _mismatch(version or 0, address)
    if standby:
        raise StoreUnavailable(
            f"The database {address} is a standby: it cannot be written to, and it may lag",
            hint="Use the address of the primary.",
        )
    if counts_less:
        raise StoreRestored(
            f"The log in {address} comes from a server that had counted further than this one",
            hint="It was restored. Make sure that it is the right backup, then run `nexus migrate`.",
        )
    if not has_seen:
        raise StoreRestored(
            f"The database {address} lacks an event, at position {seen}, that it had stored before",
            hint="It was replaced by an older copy. Make sure that it is the right one, then start this process anew "
            "and run `nexus projections rebuild`.",
            position=seen,
        )
    return Installation(name, epoch, clock)


def _mismatch(version: int, address: Address) -> SchemaMismatch:
    if version > VERSION:
        return SchemaMismatch(
            f"The database {address} has schema version {version}; this program knows up to {VERSION}",
            hint="Upgrade Nexus to the version that last migrated it, or newer.",
        )
    return SchemaMismatch(f"The database {address} has schema version {version}; this program needs {VERSION}")


def _version(connection: Connection) -> int | None:
    if connection.execute("SELECT to_regclass('schema_migrations')").fetchone() == (None,):
        return None
    row = connection.execute("SELECT max(version) FROM schema_migrations").fetchone()
    return row[0] if row else None


def require_migrated(address: Address, tables: Sequence[Table] = ()) -> None:
    """Raises what keeps ordinary processes from working here."""
    with _connected(address) as connection:
        inspect(connection, address)
        lacking = missing(connection, tables)
    if lacking:
        raise _lacking(lacking)


def _lacking(tables: Sequence[Table]) -> SchemaMismatch:
    return SchemaMismatch(f"The database lacks {', '.join(table.name for table in tables)}")


# --- migrating -----------------------------------------------------------------------------------------------------
def migrate(address: Address, tables: Sequence[Table] = (), application_role: str | None = None) -> Migrated:
    """Bring the database up to date in one transaction, as the owner of its tables. Any number may do so at once.

    `tables` are read models to make; `application_role` is given what ordinary processes need, and remembered for
    tables that come later. Raises `SchemaMismatch` for a newer database, `StoreUnavailable`, `StoreError`.
    """
    with _connected(address) as connection, connection.transaction():
        _lock(connection)
        connection.execute(_VERSIONS)
        version = _version(connection) or 0
        if version > VERSION:
            raise _mismatch(version, address)
        applied = []
        for file in _FILES:
            number = int(file.name[:4])
            if number > version:
                connection.execute(file.read_bytes())
                connection.execute("INSERT INTO schema_migrations VALUES (%s, %s)", (number, file.stem))
                applied.append(file.stem)
        connection.execute(
            "INSERT INTO installation (id) VALUES (%s) ON CONFLICT (only_one) DO NOTHING", (uuid.uuid4().hex,)
        )
        raised = _raise_epoch(connection)
        _make(connection, tables)
        if application_role is not None:
            _require_role(connection, application_role)
            connection.execute("UPDATE installation SET application_role = %s", (application_role,))
        _grant(connection)
    return Migrated(VERSION, tuple(applied), raised)


def _require_role(connection: Connection, role: str) -> None:
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
        raise ConfigurationError(
            f"There is no role {shown(role)} in this server", hint="Make it first: CREATE ROLE … LOGIN."
        )


def _raise_epoch(connection: Connection) -> bool:
    """Let positions go on after the last one, wherever the cluster's transaction ids are."""
    raised = connection.execute(
        f"UPDATE installation SET epoch = least.epoch FROM (SELECT (max(position) >> {ORDINAL_BITS}) + 1"
        " - pg_current_xact_id()::text::bigint AS epoch FROM events) AS least WHERE installation.epoch < least.epoch"
    )
    return raised.rowcount == 1


@contextmanager
def _connected(address: Address) -> Iterator[Connection]:
    try:
        with psycopg.Connection.connect(
            **address.parameters(options=f"{address.parameters()['options']} -c {SCOPE}={ALL}"), autocommit=True
        ) as connection:
            yield connection
    except psycopg.Error as error:
        raise unavailable(error, address) from None


def _lock(connection: Connection) -> None:
    """One after the other: concurrent DDL fails in ways that IF NOT EXISTS does not prevent."""
    connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


# --- the tables of read models ---------------------------------------------------------------------------------------
_ROOM: Final = "fillfactor = 70"
"""On each page, so that a row can be updated in its place without touching the indexes."""


def missing(connection: Connection, tables: Sequence[Table]) -> list[Table]:
    if not tables:
        return []
    # A query of the catalog sees what was committed while this session waited for the lock; `to_regclass` may not.
    found = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename = ANY(%s)",
        ([table.name for table in tables],),
    )
    there = {name for (name,) in found}
    return [table for table in tables if table.name not in there]


def create(connection: Connection, tables: Sequence[Table]) -> None:
    """Make these tables where they are missing; any number may do so at once. Takes their owner."""
    try:
        with connection.transaction():
            _lock(connection)
            _make(connection, tables)
            _grant(connection)
    except psycopg.errors.InsufficientPrivilege:
        raise _lacking(missing(connection, tables)) from None


def replace(connection: Connection, tables: Sequence[Table], *, indexed: bool = True, keyed: bool = True) -> None:
    """Make these tables anew, empty, inside the caller's transaction. Unless indexed they need `index` and `close`."""
    _lock(connection)
    for table in tables:
        connection.execute(f"DROP TABLE IF EXISTS {sql.identifier(table.name)}")
    _make(connection, tables, indexed=indexed, keyed=keyed)
    _grant(connection, tables)


def _make(connection: Connection, tables: Sequence[Table], *, indexed: bool = True, keyed: bool = True) -> None:
    for table in missing(connection, tables):
        # What is filled before it gets its key is filled with rows that are whole.
        connection.execute(sql.create_table(table, _TYPES, keyed=keyed) + (f" WITH ({_ROOM})" if keyed else ""))
        name = sql.identifier(table.name)
        connection.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
        connection.execute(f"CREATE POLICY tenancy ON {name} USING ({_visible(table)})")
        if indexed:
            _index(connection, table)
            close(connection, table.name)


def index(link: Link, other: Link, tables: Sequence[Table]) -> None:
    """Give filled tables the key and the indexes that they lack, by both connections at a time.

    Raises `UniqueViolation`.
    """
    with link.transaction():
        link.execute("SET LOCAL synchronous_commit = off")  # whoever sees the tables in use waits for the swap
        _lock(link)
        found = link.execute(
            "SELECT relname, EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary),"
            " EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND NOT indisprimary)"
            " FROM pg_class WHERE relname = ANY(%s) AND relnamespace = current_schema()::regnamespace",
            ([table.name for table in tables],),
        ).fetchall()
        made = {name: (keyed, indexed) for name, keyed, indexed in found}
        for table in tables:
            keyed, indexed = made.get(table.name, (True, True))
            _complete(link, other, table, keyed=keyed, indexed=indexed or not table.indexes)


def _complete(link: Link, other: Link, table: Table, *, keyed: bool, indexed: bool) -> None:
    if not indexed:
        other.begin("; ".join(sql.create_indexes(table, _suffix())))
    name = f"ix_{_suffix()}_key"
    if not keyed:
        link.execute(sql.create_key(table, name))
    if not indexed:
        other.end()
    if not keyed:  # not while the other is at work: this keeps everybody else away
        key = f"ADD PRIMARY KEY USING INDEX {sql.identifier(name)}"
        link.execute(f"ALTER TABLE {sql.identifier(table.name)} {key}, SET ({_ROOM})")


def _index(connection: Connection, table: Table) -> None:
    for statement in sql.create_indexes(table, _suffix()):
        connection.execute(statement)


def _suffix() -> str:
    return uuid.uuid4().hex[:12]


def close(connection: Connection, table: str) -> None:
    """Let the tenants' policy hold for the table's owner, too, who fills a bare one unchecked."""
    connection.execute(f"ALTER TABLE {sql.identifier(table)} FORCE ROW LEVEL SECURITY")


def _visible(table: Table) -> str:
    """Which rows a session's scope shows: fails closed, for a session that never set one sees nothing."""
    scope = f"current_setting('{SCOPE}', true)"
    everything = f"{scope} = '{ALL}'"
    if "tenant_id" in table.columns:
        return f"{everything} OR {scope} = 'tenant:' || tenant_id"
    if "sandbox_id" in table.columns and not table.internal:
        return f"{everything} OR sandbox_is_visible(sandbox_id)"
    return everything


_ROWS: Final = "SELECT, INSERT, UPDATE, DELETE"
_RIGHTS: Final = {
    "schema_migrations": "SELECT",
    "installation": "SELECT",
    "events": "SELECT, INSERT",
    "snapshots": "SELECT, INSERT, UPDATE",
    "projection_positions": _ROWS,
    "body_keys": "SELECT, INSERT, DELETE",
    "bodies": "SELECT, INSERT, DELETE",
}
"""What the application may do with the tables of the migrations; read models are its to write."""


def _grant(connection: Connection, only: Sequence[Table] = ()) -> None:
    """Give the application its rights, all of them or those on these new tables."""
    row = connection.execute("SELECT application_role FROM installation").fetchone()
    if row is None or row[0] is None:
        return
    role, rights = psycopg.sql.Identifier(row[0]), {table.name: _ROWS for table in only}
    if not only:
        views = connection.execute(
            "SELECT tablename FROM pg_policies WHERE policyname = 'tenancy' AND schemaname = current_schema()"
        ).fetchall()
        rights = {**_RIGHTS, **dict.fromkeys((name for (name,) in views), _ROWS)}
        connection.execute(psycopg.sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(_schema(connection), role))
    for table, what in rights.items():
        connection.execute(
            psycopg.sql.SQL("GRANT {} ON TABLE {} TO {}").format(
                psycopg.sql.SQL(what), psycopg.sql.Identifier(table), role
            )
        )


def _schema(connection: Connection) -> psycopg.sql.Identifier:
    row = connection.execute("SELECT current_schema()").fetchone()
    if row is None or row[0] is None:
        raise StoreError("The search path of this role names no schema that exists")
    return psycopg.sql.Identifier(row[0])
