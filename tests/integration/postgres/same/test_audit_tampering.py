"""The tamperings, over Postgres: by the tables' owner, who may disable the trigger that protects them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from nexus.adapters.stores.postgres.written import written
from nexus.domain.sealing import Written
from nexus.engine.audit.checkpoints import SigningKey
from tests.support.postgres import TestDatabase
from tests.unit.audit.test_tampering import *  # noqa: F403


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.make(tmp_path / "keys" / "audit.pem")


class _Owner:
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.rounds = 0

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        cursor = self.connection.execute(statement.replace("?", "%s"), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def written(self, after: int, upto: int) -> Iterator[Written]:
        yield from written(self.connection, after, upto)

    def begin(self) -> None:
        self.rounds += 1
        if self.rounds % 100 == 0:
            self.run("VACUUM events")  # what was rolled back is still in the way
        self.run("BEGIN")

    def rollback(self) -> None:
        self.run("ROLLBACK")


@pytest.fixture
def tampering(prepared: TestDatabase) -> Iterator[_Owner]:
    with psycopg.connect(prepared.owner, autocommit=True) as connection:
        session = _Owner(connection)
        session.run("ALTER TABLE events DISABLE TRIGGER ALL")
        session.run("SET nexus.scope = 'all'")
        yield session
