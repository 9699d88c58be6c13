from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus.adapters.stores.sqlite import SQLiteStore
from nexus.domain.ports import EventStore
from nexus.projections.projector import prepare
from nexus.projections.queries import SandboxQueries
from tests.unit.projections.fleet import Fleet


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    opened = SQLiteStore(tmp_path / "nexus.db")
    prepare(opened)
    yield opened
    opened.close()


@pytest.fixture
def fleet(store: EventStore) -> Fleet:
    return Fleet(store)


@pytest.fixture
def queries(store: EventStore) -> SandboxQueries:
    return SandboxQueries(store.views)
