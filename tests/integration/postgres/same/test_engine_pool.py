"""What of the warm pool rests on the store, over Postgres: claiming, taking, and the log of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nexus.adapters.stores.postgres import PostgresReading, PostgresStore
from nexus.domain.ports import Reading
from nexus.projections.catalog import named
from nexus.projections.verify import verify
from tests.support.postgres import TestDatabase
from tests.unit.engine.test_pool import (
    PoolWorld,
    test_a_create_takes_one_in_the_append_that_requests_the_sandbox,
    test_every_event_of_it_is_told_and_sealed,
    test_many_at_once_never_get_the_same_one,
    test_many_that_fill_at_once_never_make_too_many,
    test_one_that_vanished_is_lost,
)

__all__ = [
    "test_a_create_takes_one_in_the_append_that_requests_the_sandbox",
    "test_every_event_of_it_is_told_and_sealed",
    "test_many_at_once_never_get_the_same_one",
    "test_many_that_fill_at_once_never_make_too_many",
    "test_one_that_vanished_is_lost",
]


@pytest.fixture
def world(prepared: TestDatabase, tmp_path: Path) -> Iterator[PoolWorld]:
    """The application's; that the view equals a replay is for its owner to verify."""
    world = PoolWorld(tmp_path, store=PostgresStore(prepared.application))
    yield world
    owner = PostgresStore(prepared.owner)
    assert verify(owner, named("pool")).is_equal
    owner.close()
    world.close()


@pytest.fixture
def open_reading(prepared: TestDatabase) -> Callable[[], Reading]:
    return lambda: PostgresReading(prepared.owner)
