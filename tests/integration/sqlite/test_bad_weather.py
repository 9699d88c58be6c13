"""Files that cannot be used: a clear error, nothing recorded, no traceback of somebody else's."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest

from nexus.adapters.stores.sqlite import SQLiteStore, SQLiteViews, recorder, schema
from nexus.domain.errors import SchemaMismatch, StoreError, StoreUnavailable
from nexus.testing.store_contract.base import PETS, envelope, everything, new_stream, pet, pets, positions_of
from tests.integration.sqlite.processes import in_child, may_fork


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "nexus.db"


def failure(act: Callable[[], object], kind: type[StoreError], file: Path) -> StoreError:
    with pytest.raises(kind) as caught:
        act()
    error = caught.value
    assert str(file) in error.message
    assert error.hint
    assert "\n" not in error.message
    assert "Traceback" not in error.message
    assert "SELECT" not in error.message
    return error


# --- what is made ----------------------------------------------------------------------------------------------------
def test_only_the_owner_may_look(file: Path) -> None:
    old = os.umask(0)
    try:
        store = SQLiteStore(file)
        store.append([envelope(new_stream(), 1)])
        made = sorted(file.parent.iterdir())
        assert {path.name for path in made} == {"nexus.db", "nexus.db-shm", "nexus.db-wal"}
        assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o600] * 3
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        store.close()
    finally:
        os.umask(old)


def test_a_name_with_everything_in_it(tmp_path: Path) -> None:
    file = tmp_path / "a ?#%20&mode=memory é" / "nexus%2e.db"
    store = SQLiteStore(file)
    store.append([envelope(new_stream(), 1)])
    store.close()
    assert file.stat().st_size > 0
    assert SQLiteViews(file).query("SELECT count(*) AS n FROM events") == [{"n": 1}]


# --- files of others -------------------------------------------------------------------------------------------------
def test_not_a_database(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"Dear diary, " * 1000)
    for act in (lambda: SQLiteStore(file), lambda: SQLiteViews(file).query("SELECT 1")):
        assert "is not a database" in failure(act, StoreUnavailable, file).message
    assert file.read_bytes().startswith(b"Dear diary, ")


def test_another_programs_database(file: Path) -> None:
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE events (id INTEGER)")
    for act in (lambda: SQLiteStore(file), lambda: SQLiteViews(file).query("SELECT 1")):
        assert "another program's" in failure(act, StoreUnavailable, file).message


def test_a_newer_versions_database(file: Path) -> None:
    SQLiteStore(file).close()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    for act in (lambda: SQLiteStore(file), lambda: SQLiteViews(file).query("SELECT 1")):
        assert str(schema.VERSION + 1) in failure(act, SchemaMismatch, file).message


def test_a_file_of_the_version_before_is_brought_up_to_date(file: Path) -> None:
    store = SQLiteStore(file)
    placed = store.append([envelope(new_stream(), 1)])
    store.close()
    with closing(sqlite3.connect(file)) as connection:
        for table in ("bodies", "body_keys"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version = 1")
    store = SQLiteStore(file)
    assert store.bodies.stock().keys == 0
    assert store.read(0) == placed
    store.close()


def test_an_empty_file_is_taken_for_a_new_one(file: Path) -> None:
    file.parent.mkdir()
    file.touch()
    assert SQLiteViews(file).query("SELECT * FROM sandboxes") == []
    store = SQLiteStore(file)
    assert store.head() == 0
    store.close()


def test_a_store_that_was_begun_and_never_made_is_made(file: Path) -> None:
    """Somebody was killed after the switch to WAL and before the schema."""
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    assert SQLiteViews(file).query("SELECT * FROM sandboxes") == []
    store = SQLiteStore(file, tables=[PETS])
    store.append([envelope(new_stream(), 1)], rows=[pet("a")])
    store.close()


def test_a_damaged_file(file: Path) -> None:
    store = SQLiteStore(file)
    for _ in range(40):
        store.append([envelope(new_stream(), 1)])
    store.close()
    with file.open("r+b") as raw:
        raw.seek(4096)
        raw.write(b"\xa5" * (file.stat().st_size - 4096))
    error = failure(lambda: everything(SQLiteStore(file)), StoreUnavailable, file)
    assert "damaged" in error.message


# --- places ----------------------------------------------------------------------------------------------------------
def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    file = tmp_path / "data" / "nexus.db"
    failure(lambda: SQLiteStore(file), StoreUnavailable, file)
    failure(lambda: SQLiteViews(file).query("SELECT 1"), StoreUnavailable, file)


def test_a_file_that_is_a_folder(file: Path) -> None:
    file.mkdir(parents=True)
    failure(lambda: SQLiteStore(file), StoreUnavailable, file)


@pytest.fixture
def as_nobody(tmp_path: Path) -> Callable[[Callable[[], None]], int]:
    """Lets a child that is not root act, and returns its exit code: root may do everything, everywhere."""
    for folder in (tmp_path, *tmp_path.parents[:-1]):
        if folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o011)

    def run(act: Callable[[], None]) -> int:
        def demoted() -> None:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            act()

        return in_child(demoted)

    return run


@may_fork
def test_a_folder_without_permission(tmp_path: Path, as_nobody: Callable[[Callable[[], None]], int]) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    file = tmp_path / "locked" / "data" / "nexus.db"

    def look() -> None:
        error = failure(lambda: SQLiteStore(file), StoreUnavailable, file)
        assert "ermission" in error.message

    assert as_nobody(look) == 0


@may_fork
def test_a_file_without_permission(tmp_path: Path, as_nobody: Callable[[Callable[[], None]], int]) -> None:
    file = tmp_path / "nexus.db"
    SQLiteStore(file).close()
    file.chmod(0o000)

    def look() -> None:
        failure(lambda: SQLiteStore(file), StoreUnavailable, file)
        failure(lambda: SQLiteViews(file).query("SELECT 1"), StoreUnavailable, file)

    assert as_nobody(look) == 0


@may_fork
def test_a_read_only_store_can_be_read_and_says_why_it_cannot_be_written(
    tmp_path: Path, as_nobody: Callable[[Callable[[], None]], int]
) -> None:
    folder = tmp_path / "data"
    file = folder / "nexus.db"
    store = SQLiteStore(file, tables=[PETS])
    store.append([envelope(new_stream(), 1)], rows=[pet("a")])
    store.close()
    file.chmod(0o444)
    folder.chmod(0o555)

    def look() -> None:
        views = SQLiteViews(file)
        for _ in range(2):
            assert views.query("SELECT pet_id FROM pets") == [{"pet_id": "a"}]
        failure(lambda: SQLiteStore(file).append([envelope(new_stream(), 1)]), StoreUnavailable, file)

    try:
        assert as_nobody(look) == 0
    finally:
        folder.chmod(0o755)


# --- room and time ---------------------------------------------------------------------------------------------------
def test_a_full_disk_refuses_and_recovers(file: Path) -> None:
    """SQLite's own limit of pages stands in for the disk: the same error, at the same place."""
    store = SQLiteStore(file, tables=[PETS])
    store.append([envelope(new_stream(), 1)])
    database = store.views._database
    with database.reading() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    before = everything(store)
    stream = new_stream()

    def fill() -> None:
        nonlocal stream
        for _ in range(200):
            stream = new_stream()
            before.extend(store.append([envelope(stream, 1)], rows=[pet(stream)]))

    assert "full" in failure(fill, StoreUnavailable, file).message
    assert store.load(stream) == []
    assert stream not in {row["pet_id"] for row in pets(store)}
    with database.reading() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    before += store.append([envelope(stream, 1)], rows=[pet(stream)])
    assert everything(store) == before
    store.close()


def test_a_writer_that_never_ends_is_named_not_waited_for_for_ever(file: Path) -> None:
    store = SQLiteStore(file, busy_seconds=0.2)
    with closing(sqlite3.connect(file, isolation_level=None)) as hog:
        hog.execute("BEGIN IMMEDIATE")
        error = failure(lambda: store.append([envelope(new_stream(), 1)]), StoreUnavailable, file)
        assert "locked by another process" in error.message
        assert store.head() == 0, "readers do not wait"
        hog.execute("ROLLBACK")
    store.append([envelope(new_stream(), 1)])
    store.close()


def test_a_busy_file_is_waited_for(file: Path) -> None:
    store = SQLiteStore(file)
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as hog:
        hog.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, lambda: hog.execute("ROLLBACK"))
        timer.start()
        store.append([envelope(new_stream(), 1)])
        timer.join()
    assert store.head() == 1
    store.close()


def test_a_clock_that_is_set_back_does_not_set_the_log_back(file: Path) -> None:
    store = SQLiteStore(file)
    with mock.patch.object(recorder, "datetime") as clock:
        clock.now.return_value = datetime.now(UTC) + timedelta(hours=2)
        (ahead,) = store.append([envelope(new_stream(), 1)])
    (after,) = store.append([envelope(new_stream(), 1)])
    assert after.recorded_at == ahead.recorded_at
    assert positions_of([ahead, after]) == [1, 2]
    store.close()


def test_looking_makes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "never" / "nexus.db"
    views = SQLiteViews(file)
    assert views.query("SELECT * FROM sandboxes") == []
    assert views.position("executions:1") is None
    assert not file.parent.exists()
    store = SQLiteStore(file, tables=[PETS])
    store.append([envelope(new_stream(), 1)], rows=[pet("a")])
    assert len(views.query("SELECT * FROM pets")) == 1, "found as soon as it is there"
    with pytest.raises(StoreUnavailable):
        views.advance("pets:1", None, 1, [pet("b")])
    assert len(pets(store)) == 1
    store.close()
    views.close()


def test_a_table_that_refuses_an_event_is_not_taken_for_another_writer(file: Path) -> None:
    with closing(SQLiteStore(file)) as store:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("ALTER TABLE events ADD COLUMN colour TEXT NOT NULL CHECK (colour != '') DEFAULT ''")
        failure(lambda: store.append([envelope(new_stream(), 1)]), StoreUnavailable, file)
        assert everything(store) == []
