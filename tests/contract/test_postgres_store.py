"""The store contract over Postgres."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from nexus.adapters.stores.postgres import PostgresStore
from nexus.testing.store_contract import BodyContract, StoreContract
from nexus.testing.store_contract.base import OpenStore, RunSql
from tests.support import postgres
from tests.support.postgres import APPLICATION, TestDatabase


class TestPostgres(StoreContract, BodyContract):
    @pytest.fixture
    def database(self) -> Iterator[TestDatabase]:
        with postgres.database(tables=()) as database:
            yield database

    @pytest.fixture
    def reopen(self, database: TestDatabase) -> OpenStore:
        # The owner's: tables come and go in this suite, and only an owner may make them.
        return functools.partial(PostgresStore, database.owner)

    @pytest.fixture
    def run_sql(self, database: TestDatabase) -> RunSql:
        def run(statement: str) -> None:
            database.run(statement, user=APPLICATION)

        return run
