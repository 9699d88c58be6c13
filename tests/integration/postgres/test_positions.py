"""Positions for good: across restores into other servers, restored backups, long transactions and large appends."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from nexus.adapters.stores.postgres import PostgresStore, recorder, schema
from nexus.adapters.stores.postgres.address import Address
from nexus.domain.errors import StoreError, StoreRestored
from nexus.domain.events import DriftObserved
from nexus.projections.projector import Projector, prepare
from nexus.testing.store_contract.base import envelope, everything, new_stream, positions_of, stretch
from tests.support.postgres import (
    OWNER,
    SUPERUSER,
    Server,
    TestDatabase,
    dump,
    private_server,
    programs,
    shared_server,
)


# --- large appends ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [1, 2, 8, 9, 500, recorder.MOST_EVENTS])
def test_events_of_one_append_stand_together(store: PostgresStore, count: int) -> None:
    placed = store.append(stretch(new_stream(), 1, count))
    positions = positions_of(placed)
    assert positions == list(range(positions[0], positions[0] + count))
    assert positions[0] % recorder.MOST_EVENTS == 0
    assert everything(store) == placed


def test_more_than_a_transaction_has_room_for(store: PostgresStore) -> None:
    with pytest.raises(ValueError, match="room for 4096"):
        store.append(stretch(new_stream(), 1, recorder.MOST_EVENTS + 1))
    assert store.head() == 0


def test_payloads_larger_than_any_socket_buffer(store: PostgresStore) -> None:
    """The library's own append of this size waits for ever, for an answer that its reader has no eyes for."""
    big = DriftObserved(kind="noted", detail="x" * 3_000_000)
    many = [envelope(new_stream(), 1, DriftObserved(kind="noted", detail="y" * 200)) for _ in range(2000)]
    placed = [*store.append([envelope(new_stream(), 1, big)]), *store.append(many)]
    assert everything(store) == placed
    huge = DriftObserved(kind="noted", detail="x" * (recorder.MOST_BYTES + 1))
    with pytest.raises(ValueError, match="at most"):
        store.append([envelope(new_stream(), 1, huge)])


# --- other servers ---------------------------------------------------------------------------------------------------
def restore(script: str, database: TestDatabase) -> None:
    url = database.server.url(database.name, OWNER)
    command = [str(programs() / "psql"), "-q", "-v", "ON_ERROR_STOP=1", url]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def spend_transactions(database: TestDatabase, count: int) -> None:
    """Let the server's counter go on, as a server that has been used for long."""
    database.run(f"DO $$ BEGIN FOR i IN 1..{count} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")


def counted(database: TestDatabase) -> int:
    """How far the server's counter is."""
    ((found,),) = database.run("SELECT pg_current_xact_id()::text::bigint")
    return int(found)


@pytest.mark.parametrize("backup_as", [SUPERUSER, OWNER])
def test_moved_to_a_server_that_counted_less(prepared: TestDatabase, backup_as: str) -> None:
    """Positions go on after the last one, readers miss nothing, and nobody appends before an operator has said so."""
    spend_transactions(prepared, 3000)
    store = PostgresStore(prepared.application)
    before = [one for _ in range(5) for one in store.append(stretch(new_stream(), 1, 3))]
    store.close()
    rights = ["--enable-row-security"] if backup_as == OWNER else []
    script = dump(prepared, *rights, user=backup_as)
    with private_server(fsync="off") as server, server.database(migrated=False) as moved:
        restore(script, moved)
        with pytest.raises(StoreRestored, match="counted further") as caught:
            PostgresStore(moved.application)
        assert "nexus migrate" in caught.value.hint
        assert schema.migrate(Address(moved.owner)).epoch_raised
        assert not schema.migrate(Address(moved.owner)).epoch_raised
        store = PostgresStore(moved.application)
        reader = PostgresStore(moved.application)
        assert everything(reader) == before
        after = [one for _ in range(5) for one in store.append(stretch(new_stream(), 1, 3))]
        assert positions_of(before + after) == sorted(positions_of(before + after))
        assert everything(reader) == before + after
        assert reader.read(positions_of(before)[-1]) == after
        owner = PostgresStore(moved.owner)
        for name in ("sandboxes", "executions"):
            assert Projector(owner).verify(name).is_equal
        for one in (store, reader, owner):
            one.close()


def test_moved_to_a_server_that_counted_more(prepared: TestDatabase) -> None:
    store = PostgresStore(prepared.application)
    before = store.append(stretch(new_stream(), 1, 3))
    store.close()
    script = dump(prepared)
    with private_server(fsync="off") as server, server.database(migrated=False) as moved:
        spend_transactions(moved, counted(prepared) - counted(moved) + 100)
        restore(script, moved)
        assert not schema.migrate(Address(moved.owner)).epoch_raised
        store = PostgresStore(moved.application)
        after = store.append(stretch(new_stream(), 1, 3))
        assert positions_of(before)[-1] < positions_of(after)[0]
        assert everything(store) == before + after
        store.close()


# --- restored backups ------------------------------------------------------------------------------------------------


def test_a_process_notices_that_its_log_was_replaced_by_an_older_one(tmp_path: Path) -> None:
    """It knows of an event that is gone. It halts, and so does every follower whose view is ahead of the log."""
    with private_server(fsync="off") as server, server.database() as database:
        store = PostgresStore(database.application)
        prepare(owner := PostgresStore(database.owner))
        store.append([envelope(new_stream(), 1)])
        with database_backup(server, tmp_path):
            store.append([envelope(new_stream(), 1)])
            head = store.head()
        for ask in (store.head, lambda: store.append([envelope(new_stream(), 1)]), lambda: store.read(0)):
            with pytest.raises(StoreRestored, match=str(head)) as caught:
                ask()
            assert "older copy" in caught.value.hint
        fresh = PostgresStore(database.application)
        assert len(everything(fresh)) == 1, "a new process takes the log as it finds it"
        for one in (store, owner, fresh):
            one.close()


class database_backup:  # noqa: N801 - used as a function
    """Backs the server up, lets the body of the `with` go on, and puts the backup in its place."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server, self._backup = server, folder / "backup"

    def __enter__(self) -> None:
        self._server.stop()
        self._copy(self._server.folder, self._backup)
        self._server.start()

    def __exit__(self, *_: object) -> None:
        self._server.stop(signal.SIGQUIT)
        self._copy(self._backup, self._server.folder)
        self._server.start()

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        for part in ("data", "wal"):
            subprocess.run(["rm", "-rf", str(target / part)], check=True)
            (target / part).parent.mkdir(exist_ok=True)
            subprocess.run(["cp", "-a", str(source / part), str(target / part)], check=True)


def test_a_view_ahead_of_its_log_is_refused(prepared: TestDatabase) -> None:
    owner = PostgresStore(prepared.owner)
    projector = Projector(owner)
    owner.append([envelope(new_stream(), 1)])
    projector.catch_up()
    prepared.run("UPDATE projection_positions SET position = position + 5000 WHERE projection = 'executions:1'")
    with pytest.raises(StoreError, match="the log ends at") as caught:
        projector.catch_up()
    assert "nexus projections rebuild" in caught.value.hint
    projector.rebuild("executions")
    projector.catch_up()
    owner.close()


def test_one_server_serves_all_tests_of_a_process() -> None:
    assert shared_server() is shared_server()
