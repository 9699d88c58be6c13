from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nexus.adapters.stores.sqlite import SQLiteReading
from nexus.adapters.stores.sqlite.written import written
from nexus.domain.ports import Reading
from nexus.domain.sealing import Written
from nexus.engine.audit.checkpoints import SigningKey
from tests.support.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.make(tmp_path / "keys" / "audit.pem")


@pytest.fixture
def open_reading(world: World) -> Callable[[], Reading]:
    """An auditor's look at the world's store."""
    return lambda: SQLiteReading(world.folder / "nexus.db")


class _SQLite:
    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return self.connection.execute(statement, parameters).fetchall()

    def written(self, after: int, upto: int) -> Iterator[Written]:
        try:
            yield from written(self.connection, after, upto)
        finally:
            self.connection.text_factory = str

    def begin(self) -> None:
        self.connection.execute("BEGIN")

    def rollback(self) -> None:
        self.connection.execute("ROLLBACK")


@pytest.fixture
def tampering(world: World) -> Iterator[_SQLite]:
    """Somebody who may write the file, and has dropped its triggers."""
    session = _SQLite(world.folder / "nexus.db")
    with closing(session.connection):
        for (name,) in session.run("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            session.run(f'DROP TRIGGER "{name}"')
        yield session
