"""What an ordinary process may do, what it may not, and which rows a session sees."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from nexus.adapters.stores.postgres import PostgresStore, PostgresViews
from nexus.domain.errors import NotFound, SchemaMismatch, StoreError
from nexus.domain.values import Principal
from nexus.engine.service import Engine
from nexus.projections.projector import Projector
from nexus.testing.store_contract.base import envelope, everything, new_stream, stretch
from tests.support.postgres import APPLICATION, OWNER, SUPERUSER, TestDatabase
from tests.support.world import ADMIN, ANN, World

EVE = Principal(user_id="eve", tenant_id="evil")


@pytest.fixture
def world(tmp_path: Path, store: PostgresStore) -> World:
    """An engine whose role may add events and nothing more, and sandboxes of two tenants."""
    world = World(tmp_path, store=store)
    world.engine.create(ANN, "data", labels={"team": "blue"})
    world.engine.create(EVE, "data", labels={"team": "blue"})
    return world


# --- the application's role ------------------------------------------------------------------------------------------
def test_the_application_does_all_its_work_with_few_rights(world: World, store: PostgresStore) -> None:
    world.engine.run(ANN, "data", code="1")
    world.engine.pause(ANN, "data")
    world.engine.resume(ANN, "data")
    world.engine.stop(ANN, "data")
    world.engine.reconcile(ADMIN)
    Projector(store).catch_up()
    assert [status.lag for status in Projector(store).status()] == [0] * len(Projector(store).status())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor = 'user:mallory'",
        "DELETE FROM events",
        "TRUNCATE events",
        "DROP TRIGGER events_are_append_only ON events",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "DROP TABLE events",
        "ALTER TABLE events ADD COLUMN x text",
        "INSERT INTO events SELECT * FROM events ON CONFLICT (position) DO UPDATE SET actor = 'user:mallory'",
        "CREATE TABLE mine (id integer)",
        "UPDATE installation SET epoch = 5",
        "DELETE FROM schema_migrations",
        "ALTER TABLE sandboxes DISABLE ROW LEVEL SECURITY",
        "SET session_replication_role = replica",
    ],
)
def test_the_application_cannot(database: TestDatabase, store: PostgresStore, statement: str) -> None:
    placed = store.append(stretch(new_stream(), 1, 2))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.run(statement, user=APPLICATION)
    assert everything(store) == placed


@pytest.mark.parametrize("user", [OWNER, SUPERUSER])
@pytest.mark.parametrize(
    "statement", ["UPDATE events SET actor = 'user:mallory'", "DELETE FROM events WHERE false", "TRUNCATE events"]
)
def test_the_trigger_stops_the_owner_too(
    database: TestDatabase, store: PostgresStore, user: str, statement: str
) -> None:
    placed = store.append([envelope(new_stream(), 1)])
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
        database.run(statement, user=user)
    with psycopg.connect(database.server.url(database.name, SUPERUSER), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        with pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute(statement)
    assert everything(store) == placed


def test_what_changes_tables_says_whose_work_it_is(store: PostgresStore) -> None:
    for act in (lambda: Projector(store).rebuild("sandboxes"), lambda: Projector(store).verify("executions")):
        with pytest.raises(StoreError) as caught:
            act()
        assert not isinstance(caught.value, SchemaMismatch)
        assert "owner" in caught.value.hint


# --- row-level security ----------------------------------------------------------------------------------------------
def seen(database: TestDatabase, table: str, scope: str | None, user: str = APPLICATION) -> int:
    with psycopg.connect(database.server.url(database.name, user), autocommit=True) as connection:
        if scope is not None:
            connection.execute("SELECT set_config('nexus.scope', %s, false)", (scope,))
        rows = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert rows is not None
        return int(rows[0])


@pytest.mark.parametrize("table", ["sandboxes", "sandbox_labels", "executions"])
def test_a_session_sees_what_its_scope_shows(
    world: World, store: PostgresStore, database: TestDatabase, table: str
) -> None:
    for principal in (ANN, EVE):
        world.engine.run(principal, "data", code="1")
    Projector(store).catch_up()
    for user in (APPLICATION, OWNER):
        assert seen(database, table, "all", user) == 2
        assert seen(database, table, "tenant:default", user) == 1
        assert seen(database, table, "tenant:evil", user) == 1
        for nobody in (None, "", "tenant:", "tenant:other", "default", "tenant:%", "ALL"):
            assert seen(database, table, nobody, user) == 0, nobody


@pytest.mark.parametrize("table", ["body_keys", "bodies"])
def test_kept_code_and_output_are_their_tenants(world: World, database: TestDatabase, table: str) -> None:
    for principal in (ANN, EVE):
        world.engine.create(principal, "kept", capture=True)
        assert world.engine.run(principal, "kept", code="1").notes == ()
    each = 1 if table == "body_keys" else 3
    for user in (APPLICATION, OWNER):
        assert seen(database, table, "all", user) == 2 * each
        assert seen(database, table, "tenant:evil", user) == each
        for nobody in (None, "", "tenant:", "tenant:other", "evil", "ALL"):
            assert seen(database, table, nobody, user) == 0, nobody
    statements = (f"UPDATE {table} SET tenant_id = 'evil'", f"TRUNCATE {table}", f"DROP TABLE {table}")
    for statement in statements:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.run(statement, user=APPLICATION)
    with psycopg.connect(database.application, autocommit=True) as connection:
        connection.execute("SELECT set_config('nexus.scope', 'tenant:evil', false)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            connection.execute("INSERT INTO body_keys VALUES ('k', 'sb_x', 'default', 'm', 'w')")
        assert connection.execute(f"DELETE FROM {table}").rowcount == each
    assert seen(database, table, "tenant:default") == each


def test_a_table_of_the_installation_itself_is_no_tenants(world: World, database: TestDatabase) -> None:
    database.run("INSERT INTO quarantine VALUES ('p:1', 'sandbox-1', 1, 't', 1, 'e')")
    for table, rows in (("quarantine", 1), ("due", 2)):
        for user in (APPLICATION, OWNER):
            assert seen(database, table, "all", user) == rows
            for scope in ("tenant:default", "tenant:evil", None, "", "ALL"):
                assert seen(database, table, scope, user) == 0, (table, scope)


def test_the_views_of_a_tenant_hold_nothing_of_another(world: World, store: PostgresStore) -> None:
    for tenant in ("default", "evil", "all", "", "nobody"):
        found = store.views.of_tenant(tenant).query("SELECT tenant_id FROM sandboxes WHERE 1 = 1 OR tenant_id = 'x'")
        assert [row["tenant_id"] for row in found] == ([tenant] if tenant in ("default", "evil") else [])
    # The connections are shared: who sees everything still does.
    assert len(store.views.query("SELECT * FROM sandboxes")) == 2


def test_a_rebuilt_view_is_as_closed_as_before(world: World, prepared: TestDatabase) -> None:
    owner = PostgresStore(prepared.owner)
    projector = Projector(owner)
    for name in ("sandboxes", "due", "executions"):
        projector.rebuild(name)
        assert projector.verify(name).is_equal
    owner.close()
    for table, of_one in (("sandboxes", 1), ("sandbox_labels", 1), ("due", 0)):
        assert seen(prepared, table, None) == 0
        assert seen(prepared, table, "tenant:default") == of_one
        assert seen(prepared, table, "all") == 2


def test_a_question_that_forgets_the_tenant_finds_only_its_own(world: World, store: PostgresStore) -> None:
    """The second line: take the condition on the tenant out of the query, and the answer is still right."""
    views = store.views.of_tenant(EVE.tenant_id)
    careless = "SELECT name, user_id FROM sandboxes ORDER BY created_at"
    assert [row["user_id"] for row in views.query(careless)] == ["eve"]
    labels = "SELECT s.user_id FROM sandboxes s JOIN sandbox_labels l ON l.sandbox_id = s.sandbox_id WHERE l.value = :v"
    assert [row["user_id"] for row in views.query(labels, {"v": "blue"})] == ["eve"]


def test_views_alone_need_no_store(world: World, prepared: TestDatabase) -> None:
    views = PostgresViews(prepared.application)
    assert len(views.query("SELECT * FROM sandboxes")) == 2
    views.close()


def test_another_tenants_sandbox_answers_as_an_unknown_one(world: World) -> None:
    mine = world.engine.status(ANN, "data").sandbox_id
    for reference in (mine, mine[:12]):
        with pytest.raises(NotFound):
            world.engine.status(EVE, reference)
    assert isinstance(world.engine, Engine)
