"""Servers that are down, full, slow or not what they seem: a clear error in bounded time, and found again at once."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock
from urllib.parse import quote

import psycopg
import pytest

from nexus.adapters.stores.postgres import PostgresStore, PostgresViews
from nexus.adapters.stores.postgres import database as database_module
from nexus.adapters.stores.postgres.address import Address
from nexus.domain.errors import ConfigurationError, NexusError, StoreError, StoreUnavailable
from nexus.testing.store_contract.base import envelope, everything, new_stream
from tests.support import postgres
from tests.support.postgres import OWNER, PASSWORD, SECURED, Server, TestDatabase, private_server
from tests.support.world import ADMIN, ANN, World

SECRETS = (PASSWORD, quote(PASSWORD, safe=""), "horse", "staple")


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that the test may stop."""
    with private_server(fsync="off") as server:
        yield server


def failure(act: Callable[[], object], kind: type[NexusError] = StoreUnavailable) -> NexusError:
    """The error, which says what to do and tells no secret, neither itself nor anything that hangs on it."""
    with pytest.raises(kind) as caught:
        act()
    error = caught.value
    assert error.hint
    assert "\n" not in error.message
    told = "".join(traceback.format_exception(error)) + repr(error.details) + error.hint
    for secret in (*SECRETS, PASSWORD[::-1]):
        assert secret not in told
    return error


# --- down ------------------------------------------------------------------------------------------------------------
def test_a_server_that_goes_and_comes_back(server: Server, tmp_path: Path) -> None:
    """Nothing is recorded and nothing concluded meanwhile; the same engine works again as soon as the server does."""
    with server.database() as database:
        store = PostgresStore(database.application)
        world = World(tmp_path, store=store)
        sandbox = world.engine.create(ANN, "data", ttl_minutes=1).sandbox_id
        waited: list[bool] = []
        head = store.head()
        waiter = threading.Thread(target=lambda: waited.append(_wait_through(store, head)))
        waiter.start()
        server.stop()
        world.store.now = store.now  # type: ignore[method-assign]  # the clock has to ask the server, too
        began = time.monotonic()
        for act in (
            lambda: world.engine.create(ANN, "other"),
            lambda: world.engine.run(ANN, sandbox, code="1"),
            lambda: world.engine.stop(ANN, sandbox),
            lambda: world.engine.status(ANN, sandbox),
            lambda: world.engine.list(ANN),
            world.engine.sweep,
            lambda: world.engine.reconcile(ADMIN),
            lambda: store.append([envelope(new_stream(), 1)]),
            store.head,
            lambda: store.wait(0, 5.0),
            lambda: PostgresStore(database.application),
        ):
            message = failure(act).message
            assert "cannot be reached" in message or "broke" in message
        assert time.monotonic() - began < 10
        assert len(world.cloud.resources()) == 1, "an unreadable store is no empty one"
        server.start()
        assert world.engine.status(ANN, sandbox).status == "active"
        assert world.engine.run(ANN, sandbox, code="1").exit_code == 0
        waiter.join(30)
        assert waited == [True]
        store.close()


def _wait_through(store: PostgresStore, head: int) -> bool:
    """What a follower does: wait, and after an error wait again."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if store.wait(head, 1.0):
                return True
        except StoreError:
            time.sleep(0.05)
    return False


def test_restarted_between_two_commands(server: Server) -> None:
    """Every idle connection is dead, and nobody notices."""
    with server.database() as database:
        store = PostgresStore(database.application)
        threads = [threading.Thread(target=lambda: store.append([envelope(new_stream(), 1)])) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for how in (signal.SIGINT, signal.SIGQUIT):
            server.stop(how)
            server.start()
            store.append([envelope(new_stream(), 1)])
            assert len(store.views.query("SELECT 1 AS one")) == 1
        assert len(everything(store)) == 8
        store.close()


def test_a_standby_is_not_written_to(database: TestDatabase) -> None:
    database.run(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    store = PostgresStore(database.application)
    assert "read-only" in failure(lambda: store.append([envelope(new_stream(), 1)])).message
    assert store.head() == 0
    store.close()


# --- not let in ------------------------------------------------------------------------------------------------------
def address(database: TestDatabase, password: str) -> str:
    return f"postgresql://{SECURED}:{quote(password, safe='')}@/{database.name}?host={database.server.folder}"


def test_the_password_is_never_shown(database: TestDatabase, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    database.run(f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {SECURED}")
    store = PostgresStore(address(database, PASSWORD))
    shown = repr(store) + repr(store.views) + repr(store._database.address) + str(store._database.address)
    assert SECURED in shown
    error = failure(lambda: PostgresStore(address(database, PASSWORD[::-1])))
    assert "refuses the password" in error.message
    failure(lambda: PostgresStore(address(database, PASSWORD).replace(database.name, "no_such_database")))
    store.close()
    failure(store.head)
    assert PASSWORD not in shown + caplog.text
    assert quote(PASSWORD, safe="") not in shown + caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:horse@staple@host/db",
        "postgresql://ann:horse/staple@host/db",
        "postgresql://ann:horse%zz@host/db",
        "postgresql://ann:horse@host:staple/db",
        "postgresql://ann:horse@host/db?staple=1",
    ],
)
def test_a_url_that_cannot_be_understood_is_not_quoted(url: str) -> None:
    failure(lambda: PostgresStore(url), ConfigurationError)


def test_what_is_wrong_is_said(database: TestDatabase, server: Server) -> None:
    other = database.owner.replace(database.name, "no_such_database")
    assert "does not exist" in failure(lambda: PostgresStore(other)).message
    stranger = database.owner.replace(OWNER, "stranger")
    assert "refuses this user" in failure(lambda: PostgresStore(stranger)).message
    nowhere = f"postgresql://{OWNER}@/db?host=/nowhere"
    assert "cannot be reached" in failure(lambda: PostgresStore(nowhere)).message
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert "refused" in failure(lambda: PostgresStore(f"postgresql://a@127.0.0.1:{port}/db")).message


def test_a_server_without_a_free_connection() -> None:
    few = {"max_connections": 4, "superuser_reserved_connections": 1}
    with private_server(fsync="off", **few) as server, server.database() as database:
        crowd = [psycopg.connect(database.owner) for _ in range(3)]
        assert "no connection left" in failure(lambda: PostgresStore(database.application)).message
        for one in crowd:
            one.close()


def test_one_that_never_answers() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"postgresql://a@127.0.0.1:{deaf.getsockname()[1]}/db?connect_timeout=2"
        began = time.monotonic()
        assert "cannot be reached" in failure(lambda: PostgresStore(url)).message
        assert time.monotonic() - began < 10


# --- held up ---------------------------------------------------------------------------------------------------------
def test_more_threads_than_connections(prepared: TestDatabase) -> None:
    store = PostgresStore(prepared.application, max_connections=2)
    threads = [threading.Thread(target=lambda: store.append([envelope(new_stream(), 1)])) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(everything(store)) == 30
    assert store._database._used == 0
    assert len(store._database._idle) <= 2
    store.close()


def test_connections_that_never_come_back(prepared: TestDatabase) -> None:
    store = PostgresStore(prepared.application, max_connections=1)
    with mock.patch.object(database_module, "WAIT_SECONDS", 0.2), store._database.using():
        began = time.monotonic()
        assert "in use" in failure(store.head).message
        assert time.monotonic() - began < 3
    assert store.head() == 0
    store.close()


def test_a_lock_that_is_never_let_go(prepared: TestDatabase) -> None:
    """Somebody's transaction holds the key of the next version: a writer waits a bounded time, and says why."""
    store = PostgresStore(prepared.application + "&options=-c%20lock_timeout%3D300ms")
    event = envelope(new_stream(), 1)
    with psycopg.connect(prepared.owner) as holder:
        holder.execute("LOCK TABLE events IN SHARE MODE")
        began = time.monotonic()
        assert "held up" in failure(lambda: store.append([event])).message
        assert time.monotonic() - began < 5
        assert store.head() == 0
        holder.rollback()
    store.append([event])
    store.close()


def test_a_frozen_holder_of_a_lock_is_thrown_out(prepared: TestDatabase) -> None:
    """A process of ours that stops in the middle of a transaction keeps others waiting for a bounded time only."""
    store = PostgresStore(prepared.application)
    frozen = PostgresStore(prepared.owner + "&options=-c%20idle_in_transaction_session_timeout%3D500ms")
    with frozen._database.using() as link:
        link.execute("BEGIN")
        link.execute("LOCK TABLE events IN SHARE MODE")
        began = time.monotonic()
        store.append([envelope(new_stream(), 1)])
        assert time.monotonic() - began < 4
        with pytest.raises(psycopg.Error):
            link.execute("SELECT 1")
        link.close()
    frozen.close()
    store.close()


def test_sessions_are_bounded_by_default(store: PostgresStore) -> None:
    names = ("lock_timeout", "idle_in_transaction_session_timeout", "TimeZone", "nexus.scope")
    found = [store.views.query(f"SELECT current_setting('{name}') AS value")[0]["value"] for name in names]
    assert found == ["5s", "5s", "UTC", "all"]


def test_what_a_url_says_wins(prepared: TestDatabase) -> None:
    views = PostgresViews(prepared.application + "&options=-c%20lock_timeout%3D7s&application_name=mine")
    query = "SELECT current_setting('lock_timeout') AS a, current_setting('application_name') AS b"
    assert views.query(query) == [{"a": "7s", "b": "mine"}]
    views.close()


# --- full ------------------------------------------------------------------------------------------------------------
def test_a_full_disk() -> None:
    """Commands are refused, what was stored can be read, and with space again the same process goes on."""
    with postgres.small_server(megabytes=100) as server, server.database() as database:
        store = PostgresStore(database.application)
        stored = store.append([envelope(new_stream(), 1)])
        database.run("CREATE TABLE ballast (filling text)")
        database.run("ALTER TABLE ballast ALTER filling SET STORAGE PLAIN")
        for rows in (2000, 100, 1):
            _fill(database, rows)
        refused: StoreError | None = None
        while refused is None:
            try:
                stored += store.append([envelope(new_stream(), 1)])
            except StoreError as error:
                refused = error
        assert "full" in refused.message or "broke" in refused.message, refused.message
        database.run("DROP TABLE ballast")
        stored += store.append([envelope(new_stream(), 1)])
        assert everything(store) == stored
        store.close()


def _fill(database: TestDatabase, rows: int) -> None:
    """Until so many rows do not fit any more."""
    while True:
        try:
            database.run("INSERT INTO ballast SELECT repeat('x', 8000) FROM generate_series(1, %s)", (rows,))
        except psycopg.errors.DiskFull:
            return


def test_an_address_shows_where_it_leads() -> None:
    assert str(Address("postgresql://ann:secret@db.example:5433/nexus?sslmode=require")) == (
        "postgresql://ann@db.example:5433/nexus"
    )


def test_what_a_server_quotes_is_scrubbed() -> None:
    address = Address(f"postgresql://ann:{quote(PASSWORD, safe='')}@db.example/nexus")
    said = address.scrubbed(f"FATAL:  I was told\n\t'{PASSWORD}' and {PASSWORD}{' and so on' * 100}")
    assert PASSWORD not in said
    assert said.startswith("FATAL: I was told '…' and … and so on")
    assert len(said) <= 300
