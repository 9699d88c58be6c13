from __future__ import annotations

from collections.abc import Iterator

import pytest

from nexus.adapters.stores.postgres import PostgresStore
from tests.support import postgres
from tests.support.postgres import TestDatabase


@pytest.fixture
def database() -> Iterator[TestDatabase]:
    """A database as `nexus migrate` leaves it, the read models' positions included, in this process's server."""
    with postgres.database(prepared=True) as database:
        yield database


@pytest.fixture
def prepared(database: TestDatabase) -> TestDatabase:
    """The same, for who says so."""
    return database


@pytest.fixture
def store(prepared: TestDatabase) -> Iterator[PostgresStore]:
    """The store of an ordinary process: its role may add events and nothing more."""
    store = PostgresStore(prepared.application)
    yield store
    store.close()
