from __future__ import annotations

from collections.abc import Iterator

import pytest

from nexus.adapters.stores.postgres import PostgresStore
from nexus.projections.projector import prepare
from tests.support import postgres
from tests.support.postgres import TestDatabase


@pytest.fixture
def database() -> Iterator[TestDatabase]:
    """A migrated database in this process's server."""
    with postgres.database() as database:
        yield database


@pytest.fixture
def prepared(database: TestDatabase) -> TestDatabase:
    """A database as `nexus migrate` leaves it, the read models' positions included."""
    store = PostgresStore(database.owner)
    prepare(store)
    store.close()
    return database


@pytest.fixture
def store(prepared: TestDatabase) -> Iterator[PostgresStore]:
    """The store of an ordinary process: its role may add events and nothing more."""
    store = PostgresStore(prepared.application)
    yield store
    store.close()
