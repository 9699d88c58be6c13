"""Sealed bodies in Postgres, by row-level security those of one tenant at a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg

from nexus.adapters.stores.postgres.database import Database
from nexus.adapters.stores.postgres.link import Link
from nexus.adapters.stores.postgres.schema import ALL
from nexus.domain.bodies import BodyKey, BodyKind, SealedBody, Stock
from nexus.domain.values import from_text, to_text


class PostgresBodies:
    """Implements the `BodyStore` port. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def key(self, sandbox_id: str, tenant_id: str) -> BodyKey | None:
        return self._database.ask(lambda link: _key(link, sandbox_id), _scope(tenant_id))

    def add_key(self, key: BodyKey) -> BodyKey:
        def add(link: Link) -> BodyKey | None:
            link.execute(
                "INSERT INTO body_keys (key_id, sandbox_id, tenant_id, wrapped_by, wrapped)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (sandbox_id) DO NOTHING",
                (key.key_id, key.sandbox_id, key.tenant_id, key.wrapped_by, key.wrapped),
            )
            return _key(link, key.sandbox_id)

        return self._database.ask(add, _scope(key.tenant_id)) or key

    def put(self, bodies: Sequence[SealedBody]) -> bool:
        if not bodies:
            return True

        def insert(link: Link) -> None:
            with link.transaction():
                for body in bodies:  # not `executemany`: its pipeline hangs on values larger than a socket's buffer
                    link.execute(
                        "INSERT INTO bodies (sandbox_id, execution_id, kind, key_id, tenant_id, kept_at, sealed)"
                        " VALUES (%s, %s, %s, %s, %s, %s, %b)"
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

        try:
            self._database.ask(insert, _scope(bodies[0].tenant_id))
        except psycopg.errors.ForeignKeyViolation:
            return False
        except psycopg.IntegrityError as error:
            raise ValueError(f"A body cannot be stored: {error.diag.message_primary}") from None
        return True

    def of(self, sandbox_id: str, execution_id: str, tenant_id: str) -> list[SealedBody]:
        rows = self._rows(
            "SELECT key_id, sandbox_id, execution_id, kind, tenant_id, kept_at, sealed FROM bodies"
            " WHERE sandbox_id = %s AND execution_id = %s ORDER BY kind",
            (sandbox_id, execution_id),
            _scope(tenant_id),
        )
        return [SealedBody(k, s, e, BodyKind(kind), t, from_text(at), data) for k, s, e, kind, t, at, data in rows]

    def stock(self, sandbox_id: str | None = None) -> Stock:
        where, parameters = ("", ()) if sandbox_id is None else (" WHERE sandbox_id = %s", (sandbox_id,))
        ((executions, size, keys),) = self._rows(
            f"SELECT (SELECT count(*) FROM (SELECT DISTINCT sandbox_id, execution_id FROM bodies{where}) AS runs),"
            f" (SELECT coalesce(sum(octet_length(sealed)), 0) FROM bodies{where}),"
            f" (SELECT count(*) FROM body_keys{where})",
            parameters * 3,
            ALL,
        )
        return Stock(executions, int(size), keys)

    def kept_before(self, moment: datetime, limit: int) -> dict[str, list[str]]:
        rows = self._rows(
            "SELECT sandbox_id, execution_id FROM bodies WHERE kept_at < %s"
            " GROUP BY sandbox_id, execution_id ORDER BY min(kept_at), execution_id LIMIT %s",
            (to_text(moment), limit),
            ALL,
        )
        found: dict[str, list[str]] = {}
        for sandbox_id, execution_id in rows:
            found.setdefault(sandbox_id, []).append(execution_id)
        return found

    def scrub(self) -> None:
        """Nothing: what a deleted row leaves in the table's file goes with the server's own vacuum."""

    def _rows(self, statement: str, parameters: Sequence[Any], scope: str) -> list[tuple[Any, ...]]:
        return self._database.ask(lambda link: link.execute(statement, parameters).fetchall(), scope)


def _scope(tenant_id: str) -> str:
    return f"tenant:{tenant_id}"


def _key(link: Link, sandbox_id: str) -> BodyKey | None:
    row = link.execute(
        "SELECT key_id, sandbox_id, tenant_id, wrapped_by, wrapped FROM body_keys WHERE sandbox_id = %s", (sandbox_id,)
    ).fetchone()
    return None if row is None else BodyKey(*row)
