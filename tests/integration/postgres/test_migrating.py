"""Making and checking the tables: by one command, any number at once, all or nothing."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from unittest import mock

import pytest

from nexus.adapters.stores.postgres import PostgresStore, schema
from nexus.adapters.stores.postgres.address import Address
from nexus.domain.errors import ConfigurationError, SchemaMismatch, StoreError
from nexus.projections.catalog import key, named
from nexus.projections.tables import TABLES
from nexus.testing.store_contract.base import envelope, everything, new_stream
from tests.integration.cli.console import Console
from tests.support import postgres
from tests.support.postgres import APPLICATION, OWNER, TestDatabase


@pytest.fixture
def empty() -> Iterator[TestDatabase]:
    with postgres.database(migrated=False) as database:
        yield database


@pytest.fixture
def nexus(tmp_path: Path, empty: TestDatabase) -> Console:
    console = Console(tmp_path)
    console.env["NEXUS_DATABASE_URL"] = empty.owner
    return console


# --- many at once ----------------------------------------------------------------------------------------------------
PROCESSES, ROUNDS = 6, 6
_line: Barrier


def _stand_in_line(line: Barrier) -> None:
    global _line
    _line = line


def _cold_start(url: str) -> str:
    """What every process of a fresh installation does first; all of them at the same moment."""
    _line.wait(60)
    schema.migrate(Address(url), TABLES, APPLICATION)
    store = PostgresStore(url)
    try:
        store.append([envelope(new_stream(), 1)])
        return store.installation
    finally:
        store.close()


def test_thirty_six_cold_starts() -> None:
    context = multiprocessing.get_context("spawn")
    line = context.Barrier(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=_stand_in_line, initargs=(line,)) as pool:
        for _ in range(ROUNDS):
            with postgres.database(migrated=False) as database:
                runs = [pool.submit(_cold_start, database.owner) for _ in range(PROCESSES)]
                assert len({run.result(120) for run in runs}) == 1, "one installation for all"
                store = PostgresStore(database.owner)
                assert len(everything(store)) == PROCESSES
                store.close()


# --- versions --------------------------------------------------------------------------------------------------------
def refusal(database: TestDatabase) -> StoreError:
    """How an ordinary process refuses to work."""
    with pytest.raises(StoreError) as caught:
        PostgresStore(database.application)
    assert database.name in caught.value.message
    return caught.value


def pretend(database: TestDatabase, version: int) -> None:
    """Let the database say that this is the newest migration that it has had."""
    database.run("TRUNCATE schema_migrations")
    database.run("INSERT INTO schema_migrations VALUES (%s, 'pretended')", (version,))


def test_an_empty_database_is_refused(empty: TestDatabase) -> None:
    error = refusal(empty)
    assert isinstance(error, SchemaMismatch)
    assert "no tables" in error.message
    assert "nexus migrate" in error.hint


def test_migrating_again_changes_nothing(empty: TestDatabase) -> None:
    address = Address(empty.owner)
    assert schema.migrate(address, TABLES).applied == tuple(file.stem for file in schema._FILES)
    before = empty.run("SELECT oid, relname FROM pg_class ORDER BY oid")
    assert schema.migrate(address, TABLES).applied == ()
    assert empty.run("SELECT oid, relname FROM pg_class ORDER BY oid") == before


@pytest.mark.parametrize(("shift", "said", "hint"), [(-1, "this program needs", "migrate"), (1, "up to", "Upgrade")])
def test_another_version_is_refused(database: TestDatabase, shift: int, said: str, hint: str) -> None:
    pretend(database, schema.VERSION + shift)
    error = refusal(database)
    assert isinstance(error, SchemaMismatch)
    assert said in error.message
    assert hint in error.hint
    if shift > 0:
        with pytest.raises(SchemaMismatch, match="up to"):
            schema.migrate(Address(database.owner))


def test_a_version_of_other_columns_is_refused(database: TestDatabase) -> None:
    database.run("ALTER TABLE installation DROP COLUMN epoch")
    pretend(database, 0)
    assert "schema version 0" in refusal(database).message


def test_a_process_that_is_running_notices(database: TestDatabase) -> None:
    """At its next new connection; what it has open goes on."""
    store = PostgresStore(database.application)
    pretend(database, schema.VERSION + 1)
    store._database._forget_idle()
    with pytest.raises(SchemaMismatch):
        store.head()
    pretend(database, schema.VERSION)
    assert store.head() == 0
    store.close()


def test_a_migration_that_fails_leaves_nothing(empty: TestDatabase, tmp_path: Path) -> None:
    wrong = tmp_path / f"{schema.VERSION + 1:04d}_wrong.sql"
    wrong.write_text("CREATE TABLE half (id integer); SELECT 1 / 0;")
    with mock.patch.object(schema, "_FILES", [*schema._FILES, wrong]), pytest.raises(StoreError, match="division"):
        schema.migrate(Address(empty.owner), TABLES)
    assert empty.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_a_later_migration_comes_on_top(database: TestDatabase, tmp_path: Path) -> None:
    now = schema.VERSION
    later = tmp_path / f"{now + 1:04d}_later.sql"
    later.write_text("-- a comment with a ; in it\nCREATE TABLE later (id integer);\nINSERT INTO later VALUES (1);")
    with mock.patch.object(schema, "_FILES", [*schema._FILES, later]), mock.patch.object(schema, "VERSION", now + 1):
        assert schema.migrate(Address(database.owner)).applied == (later.stem,)
        PostgresStore(database.application).close()
    assert database.run("SELECT * FROM later") == [(1,)]
    assert f"up to {now}" in refusal(database).message


# --- read models -----------------------------------------------------------------------------------------------------
def test_tables_that_are_missing_are_for_the_owner_to_make(database: TestDatabase) -> None:
    database.run("DROP TABLE executions, due")
    store = PostgresStore(database.application)
    with pytest.raises(SchemaMismatch, match="due, executions") as caught:
        store.views.create(TABLES)
    assert "nexus migrate" in caught.value.hint
    schema.migrate(Address(database.owner), TABLES)
    store.views.create(TABLES)
    assert store.views.query("SELECT * FROM executions") == []
    store.close()


def test_a_role_that_does_not_exist(empty: TestDatabase) -> None:
    with pytest.raises(ConfigurationError, match="no role 'nobody_like_that'"):
        schema.migrate(Address(empty.owner), TABLES, "nobody_like_that")


# --- the command -----------------------------------------------------------------------------------------------------
def test_the_command(nexus: Console, empty: TestDatabase) -> None:
    check = nexus("migrate", "--check", "--json")
    assert (check.status, check.error["code"]) == (1, "schema_mismatch")
    refused = nexus("sandbox", "list")
    assert refused.status == 1
    assert "nexus migrate" in refused.err
    first = nexus.ok("migrate", "--application-role", APPLICATION, "--json").json
    assert first == {"version": schema.VERSION, "applied": [file.stem for file in schema._FILES]}
    assert nexus.ok("migrate", "--json").json["applied"] == []
    assert "nothing to do" in nexus.ok("migrate", "--check").text
    nexus.env["NEXUS_DATABASE_URL"] = empty.application
    nexus.create("box")
    assert [box["name"] for box in nexus.ok("sandbox", "list", "--json").json["sandboxes"]] == ["box"]


@pytest.mark.parametrize(
    ("found", "said", "hint"),
    [
        ("due:0", "of an older version", "nexus migrate"),
        ("due:99", "up to", "Upgrade"),
        ("x", "never", "nexus migrate"),
    ],
)
def test_read_models_of_another_version_are_refused(
    nexus: Console, empty: TestDatabase, found: str, said: str, hint: str
) -> None:
    nexus.ok("migrate", "--application-role", APPLICATION)
    nexus.env["NEXUS_DATABASE_URL"] = empty.application
    nexus.create("box")
    written = empty.run("SELECT count(*) FROM events")
    empty.run("UPDATE projection_positions SET projection = %s WHERE projection = %s", (found, key(named("due"))))
    for command in (
        ("sandbox", "create", "other"),
        ("sandbox", "list"),
        ("sandbox", "stop", "box"),
        ("worker", "--once"),
        ("migrate", "--check"),
    ):
        refused = nexus(*command, "--json")
        assert (refused.status, refused.error["code"]) == (1, "schema_mismatch"), command
        assert refused.error["message"].startswith("The view due ")
        assert said in refused.error["message"]
        assert hint in refused.error["hint"]
    assert empty.run("SELECT count(*) FROM events") == written
    (finding,) = [one for one in nexus("doctor", "--json").json["findings"] if one["check"] == "read models"]
    assert not finding["ok"]
    assert finding["detail"].startswith("The view due ")
    nexus.env["NEXUS_DATABASE_URL"] = empty.owner
    if hint == "Upgrade":
        assert nexus("migrate", "--json").error["code"] == "schema_mismatch"
        return
    nexus.ok("migrate")
    nexus.env["NEXUS_DATABASE_URL"] = empty.application
    assert "nothing to do" in nexus.ok("migrate", "--check").text
    assert nexus.ok("worker", "--once").status == 0
    nexus.ok("sandbox", "stop", "box")


def test_the_command_needs_the_owner(nexus: Console, empty: TestDatabase) -> None:
    nexus.env["NEXUS_DATABASE_URL"] = empty.application
    result = nexus("migrate", "--json")
    assert result.status == 1
    assert "does not allow" in result.error["message"]


def test_the_embedded_store_needs_no_migration(tmp_path: Path) -> None:
    nexus = Console(tmp_path)
    assert json.loads(nexus.ok("migrate", "--json").out) == {"version": None, "applied": []}
    assert nexus.ok("migrate", "--check").status == 0


def test_rows_of_a_role_are_granted_to_it_later_too(empty: TestDatabase) -> None:
    address = Address(empty.owner)
    schema.migrate(address, TABLES[:1], APPLICATION)
    schema.migrate(address, TABLES)
    granted = empty.run(
        "SELECT DISTINCT table_name FROM information_schema.role_table_grants"
        " WHERE grantee = %s AND privilege_type = 'INSERT'",
        (APPLICATION,),
    )
    assert {table.name for table in TABLES} < {name for (name,) in granted}
    assert empty.run("SELECT tableowner FROM pg_tables WHERE tablename = 'events'") == [(OWNER,)]
