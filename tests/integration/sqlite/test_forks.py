"""A store outlives forks: in the parent, in the child, and when threads were in the midst of using it."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from nexus.adapters.stores.sqlite import SQLiteStore
from nexus.adapters.stores.sqlite.database import BUSY_SECONDS
from nexus.domain.ports import RowWrite
from nexus.testing.store_contract.base import PETS, envelope, everything, new_stream, pet, pets, stretch
from tests.integration.sqlite.processes import Say, children, in_child, may_fork
from tests.support.waiting import until

pytestmark = may_fork


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(tmp_path / "nexus.db", tables=[PETS])
    yield opened
    opened.close()


def test_parent_and_children_write_side_by_side(store: SQLiteStore) -> None:
    store.append([envelope(new_stream(), 1)])

    def write() -> None:
        stream = new_stream()
        for version in range(1, 31):
            store.append([envelope(stream, version)], rows=[pet(stream, version=version)])
        assert len(store.load(stream)) == 30

    with children(4, lambda _number, _say: write()) as started:
        write()
        assert [child.exit_code() for child in started] == [0] * 4
    assert len(everything(store)) == 1 + 5 * 30
    assert [row["version"] for row in pets(store)] == [30] * 5


def test_no_connection_crosses_a_fork(store: SQLiteStore) -> None:
    """An inherited one would share the locks of a process that is not its own."""
    store.append([envelope(new_stream(), 1)])

    def look() -> None:
        links = []
        for name in Path("/proc/self/fd").iterdir():
            try:
                links.append(name.readlink())
            except FileNotFoundError:
                continue  # the listing's own
        assert not [link for link in links if "nexus.db" in link.name]

    assert in_child(look) == 0


def test_the_parent_ends_first_and_the_child_goes_on(store: SQLiteStore, tmp_path: Path) -> None:
    """Whoever closes last tidies the log away: the parent must not believe that it is the last."""
    stream = new_stream()

    def act(_number: int, say: Say) -> None:
        own = SQLiteStore(tmp_path / "nexus.db")
        own.append([envelope(stream, 1)])
        if os.fork():
            own.close()
            os._exit(0)
        for version in range(2, 60):
            own.append([envelope(stream, version)])
        say("done")

    with children(1, act) as (parent,):
        assert parent.exit_code() == 0
        assert list(parent.lines()) == ["done"]
    assert [one.originator_version for one in store.load(stream)] == list(range(1, 60))


def test_forking_while_threads_write(store: SQLiteStore) -> None:
    stop = threading.Event()
    written: list[str] = []
    failures: list[BaseException] = []

    def write_on() -> None:
        try:
            while not stop.is_set():
                stream = new_stream()
                store.append(stretch(stream, 1, 3), rows=[pet(stream)])
                written.append(stream)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    in_children = [new_stream() for _ in range(12)]
    try:
        for stream in in_children:
            assert in_child(functools.partial(store.append, [envelope(stream, 1)])) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert {one.originator_id for one in everything(store)} == {*written, *in_children}
    assert {row["pet_id"] for row in pets(store)} == set(written)
    with store.views._database.reading() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_waiting_thread_does_not_hold_up_a_fork(store: SQLiteStore) -> None:
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        assert store.wait(0, 60.0)

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(60)
    assert in_child(functools.partial(store.append, [envelope(new_stream(), 1)])) == 0
    thread.join(60)
    assert not thread.is_alive()


def test_a_transaction_that_needs_a_second_connection_gets_it_while_a_fork_waits(store: SQLiteStore) -> None:
    """The last step of a rebuild reads the log while it holds the write lock."""
    store.append([envelope(new_stream(), 1)])
    store.views.begin([replace(PETS, name="pets__aside")], "pets:1:aside")
    database = store.views._database
    swapping = threading.Event()

    def finish(_since: int) -> tuple[int, list[RowWrite]]:
        swapping.set()
        until(lambda: database._forking)
        return len(store.read(0)), []

    def swap() -> int | None:
        return store.views.swap(
            {"pets__aside": "pets"}, built="pets:1:aside", expected=0, projection="pets:1", forget=[], finish=finish
        )

    with ThreadPoolExecutor(1) as pool:
        swapped = pool.submit(swap)
        assert swapping.wait(60)
        started = time.monotonic()
        assert in_child(functools.partial(store.append, [envelope(new_stream(), 1)])) == 0
        assert time.monotonic() - started < BUSY_SECONDS / 2
        assert swapped.result(60) == 1
    assert store.head() == 2
