"""Sealed bodies in the SQLite file. Standard library only."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from nexus.adapters.stores.sqlite.database import Database
from nexus.domain.bodies import BodyKey, BodyKind, SealedBody, Stock
from nexus.domain.values import from_text, to_text

_SCRUB_WAIT: Final = 2000
"""Milliseconds that a scrub waits for readers of an older state."""


class SQLiteBodies:
    """Implements the `BodyStore` port. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def key(self, sandbox_id: str, tenant_id: str) -> BodyKey | None:
        with self._database.reading() as connection:
            return _key(connection, sandbox_id, tenant_id)

    def add_key(self, key: BodyKey) -> BodyKey:
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO body_keys VALUES (?, ?, ?, ?, ?) ON CONFLICT (sandbox_id) DO NOTHING",
                (key.key_id, key.sandbox_id, key.tenant_id, key.wrapped_by, key.wrapped),
            )
            return _key(connection, key.sandbox_id, key.tenant_id) or key

    def put(self, bodies: Sequence[SealedBody]) -> bool:
        try:
            with self._database.writing() as connection:
                # Whoever erases writes too, so what is true here is true until the commit.
                for key_id in {body.key_id for body in bodies}:
                    if connection.execute("SELECT 1 FROM body_keys WHERE key_id = ?", (key_id,)).fetchone() is None:
                        return False
                for body in bodies:
                    connection.execute(
                        "INSERT INTO bodies VALUES (?, ?, ?, ?, ?, ?, ?)"
                        " ON CONFLICT (sandbox_id, execution_id, kind) DO NOTHING",
                        (
                            body.sandbox_id,
                            body.execution_id,
                            body.kind.value,
                            body.key_id,
                            body.tenant_id,
                            to_text(body.kept_at),
                            body.sealed,
                        ),
                    )
        except sqlite3.IntegrityError as error:
            raise ValueError(f"A body cannot be stored: {error}") from None
        return True

    def of(self, sandbox_id: str, execution_id: str, tenant_id: str) -> list[SealedBody]:
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT key_id, sandbox_id, execution_id, kind, tenant_id, kept_at, sealed FROM bodies"
                " WHERE sandbox_id = ? AND execution_id = ? AND tenant_id = ? ORDER BY kind",
                (sandbox_id, execution_id, tenant_id),
            ).fetchall()
        return [SealedBody(k, s, e, BodyKind(kind), t, from_text(at), data) for k, s, e, kind, t, at, data in rows]

    def stock(self, sandbox_id: str | None = None) -> Stock:
        where, parameters = ("", ()) if sandbox_id is None else (" WHERE sandbox_id = ?", (sandbox_id,))
        with self._database.reading() as connection:
            row = connection.execute(
                f"SELECT (SELECT count(*) FROM (SELECT DISTINCT sandbox_id, execution_id FROM bodies{where})),"
                f" (SELECT coalesce(sum(length(sealed)), 0) FROM bodies{where}),"
                f" (SELECT count(*) FROM body_keys{where})",
                parameters * 3,
            ).fetchone()
        return Stock(*row)

    def kept_before(self, moment: datetime, limit: int) -> dict[str, list[str]]:
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT sandbox_id, execution_id FROM bodies WHERE kept_at < ?"
                " GROUP BY sandbox_id, execution_id ORDER BY min(kept_at), execution_id LIMIT ?",
                (to_text(moment), limit),
            ).fetchall()
        found: dict[str, list[str]] = {}
        for sandbox_id, execution_id in rows:
            found.setdefault(sandbox_id, []).append(execution_id)
        return found

    def scrub(self) -> None:
        """Deleted rows are overwritten with zeros (`secure_delete`); the log of pages beside the file is emptied."""
        with self._database.reading() as connection:
            (before,) = connection.execute("PRAGMA busy_timeout").fetchone()
            connection.execute(f"PRAGMA busy_timeout = {_SCRUB_WAIT}")
            try:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {before}")


def _key(connection: sqlite3.Connection, sandbox_id: str, tenant_id: str) -> BodyKey | None:
    row = connection.execute(
        "SELECT key_id, sandbox_id, tenant_id, wrapped_by, wrapped FROM body_keys"
        " WHERE sandbox_id = ? AND tenant_id = ?",
        (sandbox_id, tenant_id),
    ).fetchone()
    return None if row is None else BodyKey(*row)
