"""Fixtures of the same names over Postgres: the modules here run tests that were written for the embedded store."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nexus.adapters.stores.sqlite.database as sqlite_database
from nexus.adapters.stores.postgres import PostgresReading, PostgresStore
from nexus.domain.ports import EventStore, Reading
from nexus.projections.queries import SandboxQueries
from nexus.testing.store_contract.base import OpenStore
from tests.integration.cli.console import Console
from tests.support import postgres
from tests.support.postgres import TestDatabase
from tests.support.world import World
from tests.unit.projections.fleet import Fleet


@pytest.fixture(scope="module", autouse=True)
def embedded_store() -> Iterator[pytest.MonkeyPatch]:
    """Is opened by none of the tests here: it would run over that one twice, and say that it ran over Postgres."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("this test opens the embedded store: ask a fixture for the store, or leave it out here")

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sqlite_database.Database, "__init__", refuse)
        monkeypatch.setattr(sqlite_database.Database, "__del__", lambda _: None)
        yield monkeypatch


@pytest.fixture(autouse=True)
def no_file_of_its_own(tmp_path: Path) -> Iterator[None]:
    """The same of processes that a test starts."""
    yield
    assert not list(tmp_path.rglob("nexus.db"))


@pytest.fixture
def reopen(prepared: TestDatabase) -> OpenStore:
    """The owner's: some of these tests make and rebuild tables."""
    return functools.partial(PostgresStore, prepared.owner)


@pytest.fixture
def store(reopen: OpenStore) -> Iterator[EventStore]:
    store = reopen()
    yield store
    store.close()


@pytest.fixture
def world(prepared: TestDatabase, tmp_path: Path) -> Iterator[World]:
    """The application's: commands need no more."""
    world = World(tmp_path, store=PostgresStore(prepared.application))
    yield world
    world.close()


@pytest.fixture
def fleet(store: EventStore) -> Fleet:
    return Fleet(store)


@pytest.fixture
def queries(store: EventStore) -> SandboxQueries:
    return SandboxQueries(store.views)


@pytest.fixture
def open_reading(prepared: TestDatabase) -> Callable[[], Reading]:
    """An auditor's look at the world's store."""
    return lambda: PostgresReading(prepared.owner)


# --- the doors -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def shared_database() -> Iterator[TestDatabase]:
    """For modules whose tests change nothing."""
    with postgres.database(prepared=True) as database:
        yield database


@pytest.fixture
def nexus(tmp_path: Path, prepared: TestDatabase) -> Iterator[Console]:
    console = Console(tmp_path, prepared)
    yield console
    console.close()
