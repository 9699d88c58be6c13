"""The warm pool, over Postgres."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nexus.adapters.stores.postgres import PostgresReading, PostgresStore
from nexus.domain.ports import EventStore, Reading
from nexus.projections.catalog import named
from nexus.projections.verify import verify
from tests.support import postgres
from tests.support.postgres import TestDatabase
from tests.unit.engine.test_pool import *  # noqa: F403
from tests.unit.engine.test_pool import PoolWorld

del world, another, open_reading  # noqa: F821 - the embedded store's


@pytest.fixture(name="world")
def world_here(prepared: TestDatabase, tmp_path: Path) -> Iterator[PoolWorld]:
    """The application's; that the view equals a replay is for its owner to verify."""
    world = PoolWorld(tmp_path, store=PostgresStore(prepared.application))
    yield world
    owner = PostgresStore(prepared.owner)
    assert verify(owner, named("pool")).is_equal
    owner.close()
    world.close()


@pytest.fixture(name="another")
def another_here() -> Iterator[EventStore]:
    with postgres.database(prepared=True) as database:
        store = PostgresStore(database.application)
        yield store
        store.close()


@pytest.fixture(name="open_reading")
def reading_here(prepared: TestDatabase) -> Callable[[], Reading]:
    return lambda: PostgresReading(prepared.owner)
