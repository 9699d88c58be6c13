from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus.adapters.stores.sqlite import SQLiteStore
from nexus.domain.ports import EventStore
from nexus.projections.projector import prepare
from nexus.projections.queries import SandboxQueries
from nexus.testing.store_contract.base import OpenStore
from tests.unit.projections.fleet import Fleet


@pytest.fixture
def reopen(tmp_path: Path) -> OpenStore:
    """Opens the store as another process would."""
    return functools.partial(SQLiteStore, tmp_path / "nexus.db")


@pytest.fixture
def store(reopen: OpenStore) -> Iterator[EventStore]:
    opened = reopen()
    prepare(opened)
    yield opened
    opened.close()


@pytest.fixture
def fleet(store: EventStore) -> Fleet:
    return Fleet(store)


@pytest.fixture
def queries(store: EventStore) -> SandboxQueries:
    return SandboxQueries(store.views)
