"""A forked child has connections of its own, and leaves its parent's alone."""

from __future__ import annotations

import os
import threading
import time

from nexus.adapters.stores.postgres import PostgresStore
from nexus.testing.store_contract.base import envelope, everything, new_stream


def in_a_child(work: object) -> int:
    """Fork, call, and end without any clean-up but what the store itself does; the child's exit status."""
    child = os.fork()
    if child == 0:
        try:
            work()  # type: ignore[operator]
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_parent_and_child_append_side_by_side(store: PostgresStore) -> None:
    threads = [threading.Thread(target=lambda: store.append([envelope(new_stream(), 1)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.wait(store.head(), 0.001)

    def append() -> None:
        for _ in range(20):
            store.append([envelope(new_stream(), 1)])
        assert store.wait(0, 5.0)
        store.close()

    for _ in range(3):
        assert in_a_child(append) == 0
        store.append([envelope(new_stream(), 1)])
    assert len(everything(store)) == 4 + 3 * 21


def backend(store: PostgresStore) -> int:
    """Who answers at the other end of the connection that is used next."""
    found: int = store.views.query("SELECT pg_backend_pid() AS pid")[0]["pid"]
    return found


def test_a_child_leaves_its_parents_connections_alone(store: PostgresStore) -> None:
    before = backend(store)

    def ask() -> None:
        assert backend(store) != before

    for work in (lambda: None, ask, store.close):
        assert in_a_child(work) == 0
        assert backend(store) == before


def test_a_fork_while_others_append(store: PostgresStore) -> None:
    stop = threading.Event()
    appended = []

    def append_on() -> None:
        while not stop.is_set():
            store.append([envelope(new_stream(), 1)])
            appended.append(1)

    threads = [threading.Thread(target=append_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            count = len(appended)
            assert in_a_child(lambda: store.append([envelope(new_stream(), 1)])) == 0
            deadline = time.monotonic() + 30
            while len(appended) < count + 5:
                assert time.monotonic() < deadline
                time.sleep(0.001)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(everything(store)) == len(appended) + 5
