"""Whatever the order of commands, over Postgres."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nexus.adapters.stores.postgres import PostgresStore
from nexus.domain.ports import EventStore
from tests.support import postgres
from tests.unit.projections.test_any_story import *  # noqa: F403

del store  # noqa: F821 - the embedded one


@pytest.fixture(name="store", scope="module")
def store_here() -> Iterator[EventStore]:
    """One for all examples: each tells of a sandbox of its own."""
    with postgres.database(prepared=True) as database:
        opened = PostgresStore(database.owner)
        yield opened
        opened.close()
