"""Long streams are folded while the server still sends them: of one moment, and with the connection given back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nexus.adapters.stores.postgres import PostgresStore
from nexus.adapters.stores.postgres import database as database_module
from nexus.domain.errors import StoreUnavailable, UnreadableEvent
from nexus.domain.events import Fact
from nexus.testing.store_contract.base import envelope, new_stream, stretch
from nexus.testing.store_contract.reading import FromTheFuture
from tests.support.postgres import TestDatabase
from tests.support.waiting import until

LONG = 5000
"""Events: more than the sockets between server and client hold, and many pages."""
_SENDING = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT topic, %%' AND state = 'active' AND usename = %s"


@pytest.fixture
def single(prepared: TestDatabase) -> Iterator[PostgresStore]:
    """A store with one connection: a history that keeps it would be noticed."""
    store = PostgresStore(prepared.application, max_connections=1)
    yield store
    store.close()


def long_stream(store: PostgresStore) -> str:
    stream = new_stream()
    for first in range(1, LONG, 1000):
        store.append(stretch(stream, first, first + 999))
    return stream


def versions(facts: Iterator[Fact]) -> list[int]:
    return [fact.originator_version for fact in facts]


def test_a_long_one_is_of_one_moment(store: PostgresStore) -> None:
    stream = long_stream(store)
    facts = store.history(stream)
    assert next(facts).originator_version == 1
    store.append(stretch(stream, LONG + 1, LONG + 5))
    assert versions(facts) == list(range(2, LONG + 1))
    assert versions(store.history(stream, after=LONG)) == list(range(LONG + 1, LONG + 6))


def test_one_that_is_read_gives_its_connection_back(single: PostgresStore) -> None:
    stream = long_stream(single)
    for _ in range(3):
        assert len(list(single.history(stream))) == LONG
        assert len(list(single.history(new_stream()))) == 0
        assert single.last(stream) is not None


def test_one_that_is_given_up_gives_its_connection_back(
    single: PostgresStore, prepared: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "WAIT_SECONDS", 0.05)
    stream = long_stream(single)
    facts = single.history(stream)
    next(facts)
    with pytest.raises(StoreUnavailable, match="All 1 connections"):
        single.last(stream)
    facts.close()  # type: ignore[attr-defined]
    assert single.last(stream) is not None
    until(lambda: not prepared.run(_SENDING, ["nexus_app"]))


def test_one_with_an_unreadable_event_gives_its_connection_back(single: PostgresStore) -> None:
    stream = long_stream(single)
    single.append([envelope(stream, LONG + 1, FromTheFuture(where="Mars"))])
    single.append(stretch(stream, LONG + 2, LONG + 2000))
    with pytest.raises(UnreadableEvent) as caught:
        list(single.history(stream))
    assert single.last(stream) is not None
    assert caught.value.__traceback__ is not None, "the error, and with it the frames of the reader, was let go before"


def test_what_is_asked_meanwhile_goes_over_the_held_connection(single: PostgresStore) -> None:
    stream = long_stream(single)
    with single._database.holding():
        facts = single.history(stream)
        assert next(facts).originator_version == 1
        assert single.last(stream) is not None
        assert versions(facts) == list(range(2, LONG + 1))


def test_a_connection_that_broke_while_it_was_idle_is_replaced(single: PostgresStore, prepared: TestDatabase) -> None:
    stream = long_stream(single)
    prepared.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", ["nexus_app"])
    assert versions(single.history(stream)) == list(range(1, LONG + 1))


def test_one_that_breaks_in_the_middle_is_no_shorter_history(single: PostgresStore, prepared: TestDatabase) -> None:
    stream = long_stream(single)
    facts = single.history(stream)
    next(facts)
    until(lambda: bool(prepared.run(_SENDING, ["nexus_app"])))
    prepared.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", ["nexus_app"])
    until(lambda: not prepared.run(_SENDING, ["nexus_app"]))
    with pytest.raises(StoreUnavailable, match="broke"):
        list(facts)
    assert len(list(single.history(stream))) == LONG
