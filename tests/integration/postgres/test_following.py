"""Being told of events: quickly by notification, soon without one, and again after the listener was killed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from unittest import mock

import psycopg
import pytest

from nexus.adapters.stores.postgres import PostgresStore
from nexus.adapters.stores.postgres import news as news_module
from nexus.testing.store_contract.base import envelope, everything, new_stream
from tests.support.postgres import TestDatabase
from tests.support.waiting import until

PATIENCE = 30.0


@pytest.fixture
def other(prepared: TestDatabase) -> Iterator[PostgresStore]:
    """Another process's store, as far as the database can tell."""
    store = PostgresStore(prepared.application)
    yield store
    store.close()


def listeners(database: TestDatabase) -> list[int]:
    """Backends that do nothing but listen."""
    return [pid for (pid,) in database.run("SELECT pid FROM pg_stat_activity WHERE query = 'LISTEN nexus_events'")]


class Waiter(threading.Thread):
    """Waits for something after the log's present end, and notes when it was told."""

    def __init__(self, store: PostgresStore) -> None:
        super().__init__()
        self._store, self._head = store, store.head()
        self.told: float | None = None
        self.start()

    def run(self) -> None:
        if self._store.wait(self._head, PATIENCE):
            self.told = time.monotonic()

    def delay(self, since: float) -> float:
        self.join(PATIENCE)
        assert self.told is not None
        return self.told - since


def wake_up(waiting: PostgresStore, writing: PostgresStore) -> float:
    """Seconds from an append's return until a waiting reader is told."""
    waiter = Waiter(waiting)
    writing.append([envelope(new_stream(), 1)])
    return waiter.delay(time.monotonic())


def test_a_notification_wakes(store: PostgresStore, other: PostgresStore, database: TestDatabase) -> None:
    store.wait(store.head(), 0.001)
    until(lambda: listeners(database))
    delays = sorted(wake_up(store, other) for _ in range(20))
    assert delays[10] < 0.2, "a look once a second would take longer"


def test_without_notifications_it_takes_a_second(store: PostgresStore, other: PostgresStore) -> None:
    with mock.patch.object(news_module.News, "_listen"):
        assert wake_up(store, other) < 2.5


def test_a_killed_listener_comes_back(store: PostgresStore, other: PostgresStore, database: TestDatabase) -> None:
    store.wait(store.head(), 0.001)
    until(lambda: listeners(database))
    for _ in range(3):
        waiter = Waiter(store)
        (pid,) = listeners(database)
        database.run("SELECT pg_terminate_backend(%s)", (pid,))
        killed = time.monotonic()
        other.append([envelope(new_stream(), 1)])
        assert waiter.delay(killed) < 2.0
        until(lambda before=pid: [found for found in listeners(database) if found != before])  # type: ignore[misc]
        assert time.monotonic() - killed < 2.0, "it listens again"
        assert wake_up(store, other) < 1.0


def test_a_waiting_reader_is_not_fooled(store: PostgresStore, other: PostgresStore, database: TestDatabase) -> None:
    """Somebody tells of an event that is not there, or tells nonsense: the reader looks, and waits on."""
    store.append([envelope(new_stream(), 1)])
    head = store.head()
    waiter = Waiter(store)
    for lie in (str(head + 5), "", "nonsense", "-3"):
        database.run("SELECT pg_notify('nexus_events', %s)", (lie,))
    assert not store.wait(head, 0.3)
    assert waiter.told is None
    other.append([envelope(new_stream(), 1)])
    waiter.delay(time.monotonic())


# --- older transactions ----------------------------------------------------------------------------------------------
def test_an_event_waits_for_every_older_transaction(
    store: PostgresStore, other: PostgresStore, prepared: TestDatabase
) -> None:
    """Whatever runs in the server, a reader passes nothing that could still appear behind it."""
    with psycopg.connect(prepared.owner) as slow:
        slow.execute("SELECT pg_current_xact_id()")
        before = store.head()
        stream = new_stream()
        placed = other.append([envelope(stream, 1)])
        assert store.load(stream) == placed, "the stream itself has no horizon"
        assert store.head() == before
        assert store.read(before) == []
        assert not store.wait(before, 0.1)
        began = time.monotonic()
        assert other.read(before) == [], "who wrote it waits a moment, and is not told what may be wrong"
        assert 0.5 < time.monotonic() - began < 5
        waiter = Waiter(store)
        slow.commit()
        assert waiter.delay(time.monotonic()) < 2
    assert everything(store)[-1:] == placed


def test_an_append_that_commits_late_is_not_missed(store: PostgresStore, prepared: TestDatabase) -> None:
    """An older transaction's event appears after a younger one's: a reader gets both, in the order of positions."""
    store.append([envelope(new_stream(), 1)])
    start = store.head()
    late = PostgresStore(prepared.application)
    with late._database.using() as link, link.transaction():
        link.execute("SELECT pg_current_xact_id()")
        with mock.patch.object(late._database, "using", return_value=contextlib.nullcontext(link)):
            first = late._recorder.insert_events([late._mapper.to_stored_event(envelope(new_stream(), 1))])
        second = store.append([envelope(new_stream(), 1)])[0].position
        assert second is not None
        assert first[0] < second
        assert store.read(start) == []
    assert [one.position for one in store.read(start)] == [first[0], second]
    late.close()


def test_who_wrote_reads_it_at_once(store: PostgresStore) -> None:
    for _ in range(50):
        (placed,) = store.append([envelope(new_stream(), 1)])
        assert store.head() == placed.position
        assert store.read((placed.position or 0) - 1) == [placed]
