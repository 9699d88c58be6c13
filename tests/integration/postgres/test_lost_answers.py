"""Requests and answers that never arrive: what was told is what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest

from nexus.adapters.stores.postgres import PostgresStore
from nexus.adapters.stores.postgres import store as store_module
from nexus.domain.errors import StoreOutcomeUnknown, StoreUnavailable, StreamConflict
from nexus.domain.ports import RowWrite
from nexus.testing.store_contract.base import envelope, everything, new_stream, stretch
from tests.support import postgres_proxy
from tests.support.postgres import TestDatabase
from tests.support.postgres_proxy import Loss, Proxy


@pytest.fixture
def door(prepared: TestDatabase) -> Iterator[Proxy]:
    with postgres_proxy.proxy(prepared.server.socket) as door:
        yield door


@pytest.fixture
def behind(prepared: TestDatabase, door: Proxy) -> Iterator[PostgresStore]:
    """A store whose every byte goes through the door; it has one connection, and that is in use already."""
    store = PostgresStore(door.url(prepared.application), max_connections=1)
    store.append([envelope(new_stream(), 1)])
    store.head()
    store._news.close()  # no thread of its own that would ask in between
    yield store
    store.close()


def due(stream: str) -> RowWrite:
    return RowWrite("due", {"sandbox_id": stream}, {"version": 1, "due_at": "2031", "in_flight": 0})


@pytest.mark.parametrize("loss", ["request", "answer"])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_an_append_whose_answer_is_lost_is_one_append(
    behind: PostgresStore, store: PostgresStore, door: Proxy, loss: Loss, count: int
) -> None:
    stream = new_stream()
    door.lose(loss)
    placed = behind.append(stretch(stream, 1, count), rows=[due(stream)])
    assert door.lost == 1
    assert store.load(stream) == placed
    assert [one.originator_id for one in everything(store)].count(stream) == count
    assert store.views.query("SELECT version FROM due WHERE sandbox_id = :id", {"id": stream}) == [{"version": 1}]


def test_a_conflict_stays_a_conflict(behind: PostgresStore, store: PostgresStore, door: Proxy) -> None:
    stream = new_stream()
    store.append([envelope(stream, 1)])
    door.lose("request")
    with pytest.raises(StreamConflict):
        behind.append([envelope(stream, 1)])
    assert len(store.load(stream)) == 1


@pytest.mark.parametrize(("loss", "stored"), [("request", 0), ("answer", 1)])
def test_a_server_that_stays_away_leaves_it_open(
    behind: PostgresStore, store: PostgresStore, door: Proxy, loss: Loss, stored: int
) -> None:
    stream = new_stream()
    event = envelope(stream, 1)
    door.lose(loss, then_shut=True)
    with mock.patch.object(store_module, "RESOLVE_SECONDS", 0.3), pytest.raises(StoreOutcomeUnknown) as caught:
        behind.append([event])
    assert caught.value.details["events"] == (event.event_id,)
    assert len(store.load(stream)) == stored
    with pytest.raises(StoreUnavailable):
        behind.append([envelope(new_stream(), 1)])
    door.shut(shut=False)
    assert behind.append([event])[0].position is not None
    assert len(store.load(stream)) == 1


@pytest.mark.parametrize("loss", ["request", "answer"])
def test_a_question_is_asked_again(behind: PostgresStore, door: Proxy, loss: Loss) -> None:
    head = behind.head()
    door.lose(loss)
    assert behind.head() == head
    door.lose(loss)
    assert behind.read(0)[-1].position == head
    assert door.lost == 2


@pytest.mark.parametrize(("loss", "moved"), [("request", False), ("answer", True)])
def test_a_view_moves_once(behind: PostgresStore, store: PostgresStore, door: Proxy, loss: Loss, moved: bool) -> None:
    """A projector whose COMMIT is lost looks where its view stands, as it does after any failure."""
    behind.views.advance("pages:1", None, 1, [due("a")])
    door.lose(loss, when=b"COMMIT")
    with pytest.raises(StoreUnavailable):
        behind.views.advance("pages:1", 1, 2, [due("b")])
    assert door.lost == 1
    assert store.views.position("pages:1") == (2 if moved else 1)
    assert behind.views.advance("pages:1", 1, 2, [due("b")]) is not moved
    assert len(store.views.query("SELECT * FROM due")) == 2
