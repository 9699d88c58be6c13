"""Making the file and its tables, once, however many processes begin at the same moment. Standard library only."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nexus.adapters.stores import sql
from nexus.domain.errors import SchemaMismatch, StoreUnavailable
from nexus.domain.ports import Table
from nexus.domain.values import to_text

VERSION: Final = 2
"""Number of the newest file in `migrations`; SQLite keeps a file's own in `user_version`."""
APPLICATION_ID: Final = 0x4E584553
_MARKS: Final = (
    "SELECT (SELECT user_version FROM pragma_user_version), (SELECT application_id FROM pragma_application_id),"
    " (SELECT count(*) FROM sqlite_master)"
)
"""One statement, so one moment: another process may be making the schema right now."""
_MIGRATIONS: Final = Path(__file__).with_name("migrations")


def make_file(path: Path) -> None:
    """An empty file that only its owner may read, in a folder that only its owner may enter."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # the file's name, too, has to survive a power cut
    finally:
        os.close(folder)


def use_wal(connection: sqlite3.Connection) -> None:
    """Readers that never wait for the writer. The mode stays with the file, so all but the first only look."""
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        connection.execute("PRAGMA journal_mode = WAL")


def check(connection: sqlite3.Connection, path: Path) -> int:
    """The file's schema version; raises for another program's file and for a newer Nexus's."""
    version, application, others = connection.execute(_MARKS).fetchone()
    if application != APPLICATION_ID:
        if application or others:
            raise StoreUnavailable(
                f"The file {path} is another program's database",
                hint="Move it away, or set NEXUS_DATA_DIR to another folder.",
                path=str(path),
            )
        return 0
    if version > VERSION:
        raise SchemaMismatch(
            f"The store {path} has schema version {version}; this program knows up to {VERSION}",
            hint="Upgrade Nexus to the version that last used it, or newer.",
            path=str(path),
        )
    return int(version)


def is_behind(connection: sqlite3.Connection, path: Path, tables: Sequence[Table]) -> bool:
    return check(connection, path) < VERSION or bool(missing(connection, tables))


def migrate(connection: sqlite3.Connection, path: Path, tables: Sequence[Table]) -> None:
    """Bring the file up to date, inside the caller's write transaction: all of it, or nothing."""
    version = check(connection, path)
    for number in range(version + 1, VERSION + 1):
        (script,) = _MIGRATIONS.glob(f"{number:04d}_*.sql")
        for statement in _statements(script.read_text(encoding="utf-8")):
            connection.execute(statement)
    if version < VERSION:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    if version == 0:
        connection.execute("INSERT INTO installation VALUES (?, ?)", (os.urandom(16).hex(), to_text(datetime.now(UTC))))
    create(connection, tables)


def missing(connection: sqlite3.Connection, tables: Sequence[Table]) -> list[Table]:
    if not tables:
        return []
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return [table for table in tables if table.name not in there]


def create(connection: sqlite3.Connection, tables: Sequence[Table], *, indexed: bool = True) -> None:
    """Make these tables where they are missing, inside the caller's write transaction."""
    for table in missing(connection, tables):
        connection.execute(sql.create_table(table))
        if indexed:
            _index(connection, table)


def index(connection: sqlite3.Connection, tables: Sequence[Table]) -> None:
    """Give filled tables their indexes, where they have none but the key's. Passes over those that are not there."""
    made = "SELECT tbl_name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    indexed = {name for (name,) in connection.execute(made)}
    gone = missing(connection, tables)
    for table in tables:
        if table.name not in indexed and table not in gone:
            _index(connection, table)


def _index(connection: sqlite3.Connection, table: Table) -> None:
    for statement in sql.create_indexes(table, os.urandom(6).hex()):
        connection.execute(statement)


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: `executescript` would commit the transaction that it runs in."""
    gathered = ""
    for line in script.splitlines(keepends=True):
        gathered += line
        if sqlite3.complete_statement(gathered):
            yield gathered
            gathered = ""
