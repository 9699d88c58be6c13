"""The store contract over SQLite."""

from __future__ import annotations

import functools
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nexus.adapters.stores.sqlite import SQLiteStore
from nexus.domain.ports import EventStore
from nexus.testing.store_contract import BodyContract, StoreContract
from nexus.testing.store_contract.base import OpenStore, RunSql, envelope, everything, new_stream


class TestSQLite(StoreContract, BodyContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "data" / "nexus.db"

    @pytest.fixture
    def reopen(self, path: Path) -> OpenStore:
        return functools.partial(SQLiteStore, path)

    @pytest.fixture
    def run_sql(self, path: Path) -> RunSql:
        def run(statement: str) -> None:
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute(statement)

        return run

    @pytest.mark.parametrize(
        "replacement",
        ["position, event_id, 2", "'new', originator_version", "event_id, 2", "'new', 1"],
    )
    def test_replacing_an_event_is_refused_too(self, store: EventStore, run_sql: RunSql, replacement: str) -> None:
        """INSERT OR REPLACE removes the row in its way without asking a delete trigger."""
        placed = store.append([envelope(new_stream(), 1)])
        position = "position, " if replacement.startswith("position") else ""
        others = (
            "originator_id, topic, schema_version, state, occurred_at, recorded_at, actor, tenant_id, command,"
            " correlation_id"
        )
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            run_sql(
                f"INSERT OR REPLACE INTO events ({position}event_id, originator_version, {others})"
                f" SELECT {replacement}, {others} FROM events"
            )
        assert everything(store) == placed
