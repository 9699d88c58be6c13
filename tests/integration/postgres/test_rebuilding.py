"""Every view rebuilt while others append and read: nothing is lost, no read fails or goes back, all equals a replay."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest

from nexus.adapters.stores.postgres import PostgresStore, recorder
from nexus.adapters.stores.postgres.link import Link, Parameter
from nexus.domain.ports import EventStore
from nexus.domain.sandbox import stream_id
from nexus.projections.catalog import ALL, named
from nexus.projections.projector import Projector
from nexus.projections.queries import SandboxQueries
from nexus.projections.rebuild import rebuild
from tests.support.postgres import OWNER, TestDatabase
from tests.unit.domain.story import run_finished, run_started, started, stop_requested, stopped
from tests.unit.projections.fleet import ADA, Fleet, new_id

NAMES = [projection.name for projection in ALL]
PAUSE = 0.005
"""Seconds between a writer's lives: who appends without end outruns any test."""


@pytest.fixture
def owner(prepared: TestDatabase) -> Iterator[PostgresStore]:
    store = PostgresStore(prepared.owner)
    yield store
    store.close()


def live_on(url: str, number: int, stop: threading.Event) -> int:
    """Sandboxes that come, run something and go; how many there were."""
    store = PostgresStore(url)
    fleet, lives = Fleet(store), 0
    try:
        while not stop.wait(PAUSE):
            lives += 1
            sandbox_id = fleet.create(f"w{number}-{lives}", labels={"w": str(number)})
            fleet.tell(sandbox_id, started(), run_started(f"ex_{number}_{lives}"))
            fleet.tell(sandbox_id, run_finished(f"ex_{number}_{lives}"))
            if lives % 2:
                fleet.tell(sandbox_id, stop_requested(), stopped())
            assert SandboxQueries(store.views).get(sandbox_id) is not None, "seen by whoever wrote it"
        return lives
    finally:
        store.close()


def read_on(url: str, stop: threading.Event) -> int:
    """The most rows that a reader saw; it never sees fewer than before."""
    store = PostgresStore(url)
    queries, most = SandboxQueries(store.views), 0
    try:
        while not stop.is_set():
            count = store.views.query("SELECT count(*) AS n FROM sandboxes")[0]["n"]
            assert count >= most, "a row was gone for a moment"
            most = count
            queries.page(ADA, limit=5)
        return most
    finally:
        store.close()


def test_rebuilds_under_load_lose_nothing(prepared: TestDatabase, owner: EventStore) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(live_on, prepared.application, number, stop) for number in range(2)]
        reader = pool.submit(read_on, prepared.application, stop)
        try:
            for name in (*NAMES, *NAMES):
                rebuild(owner, named(name), page=200)
        finally:
            stop.set()
        lives = sum(writer.result(60) for writer in writers)
        assert reader.result(60) > 0
    projector = Projector(owner)
    projector.catch_up()
    for name in NAMES:
        verdict = projector.verify(name)
        assert verdict.is_equal, str(verdict.difference)
    assert owner.views.query("SELECT count(*) AS n FROM sandboxes") == [{"n": lives}]
    assert owner.views.query("SELECT count(*) AS n FROM due") == [{"n": len(SandboxQueries(owner.views).live())}]


def test_a_swap_waits_for_every_append_that_has_begun(
    prepared: TestDatabase, owner: PostgresStore, store: PostgresStore
) -> None:
    """An append in flight has a lower position than one that is committed: a view that stood past it would miss it."""
    fleet = Fleet(store)
    sandbox_id = fleet.create()
    fleet.tell(sandbox_id, started())
    late = fleet.envelopes(f"sandbox-{'0' * 32}", 0, [run_started("ex_late")])
    with ThreadPoolExecutor(1) as pool:
        with store._database.using() as link, link.transaction():
            with mock.patch.object(store._database, "using", return_value=contextlib.nullcontext(link)):
                store._recorder.insert_events([store._mapper.to_stored_event(one) for one in late])
            other = PostgresStore(prepared.application)
            other.append(fleet.envelopes(f"sandbox-{'1' * 32}", 0, [run_started("ex_early")]))
            other.close()
            run = pool.submit(rebuild, owner, named("executions"))
            with pytest.raises(TimeoutError):
                run.result(1.5)
        run.result(30)
    Projector(owner).catch_up()
    found = owner.views.query("SELECT execution_id FROM executions ORDER BY execution_id")
    assert [row["execution_id"] for row in found] == ["ex_early", "ex_late"]


def test_a_swap_waits_long_enough_for_an_autovacuum_to_make_way(prepared: TestDatabase, owner: PostgresStore) -> None:
    """One makes way for who has waited for a second; here somebody with the same lock does."""
    Fleet(owner).create()
    waiting = (
        "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass"
        " AND clock_timestamp() - waitstart > interval '1 s'"
    )
    with ThreadPoolExecutor(1) as pool:
        with owner._database.using() as link, link.transaction():
            link.execute("LOCK TABLE events IN SHARE UPDATE EXCLUSIVE MODE")
            run = pool.submit(rebuild, owner, named("executions"))
            while not prepared.run(waiting):
                assert not run.done(), run.result()
        assert run.result(30).events == 1


@pytest.mark.parametrize("stretch", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_log_in_pages_of_several_queries(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, stretch: int, size: int
) -> None:
    monkeypatch.setattr(recorder, "_STRETCH", stretch)
    fleet = Fleet(store)
    fleet.tell(fleet.create(), started(), run_started(), run_finished())
    pages = list(store.pages(size))
    assert [row for page in pages for row in page] == store.raw(0)
    assert len(store.raw(0)) == 4


@pytest.mark.parametrize("read", [lambda store: store.raw(0, 500), lambda store: next(store.pages(500))])
def test_a_page_of_a_log_without_statistics_is_read_along_the_index(
    store: PostgresStore, prepared: TestDatabase, read: Callable[[PostgresStore], object]
) -> None:
    """As after a restore. The planner takes it for a few events, which it would rather sort."""
    prepared.run("ALTER TABLE events SET (autovacuum_enabled = off)", user=OWNER)
    fleet = Fleet(store)
    for _ in range(15):
        store.append(fleet.envelopes(stream_id(new_id()), 0, [run_started(f"ex_{number}") for number in range(200)]))
    asked: list[tuple[str, Sequence[Parameter]]] = []
    ask = Link._ask

    def noted(link: Link, statement: str, parameters: Sequence[Parameter], *, binary: bool) -> None:
        asked.append((statement, parameters))
        ask(link, statement, parameters, binary=binary)

    with mock.patch.object(Link, "_ask", noted):
        read(store)
    ((statement, parameters),) = [one for one in asked if "ORDER BY position" in one[0]]
    with store._database.using() as link:
        plan = "\n".join(line for (line,) in link.run(f"EXPLAIN {statement}", parameters))
    assert "Index Scan using events_pkey" in plan, plan
    assert "Sort" not in plan, plan


def test_a_rebuilt_table_is_made_like_a_new_one(owner: PostgresStore, prepared: TestDatabase) -> None:
    """Filled bare: without indexes, and open to its owner. Both come before it takes the other's place."""

    def made() -> list[tuple[object, ...]]:
        return prepared.run(
            "SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, c.reloptions, array(SELECT"
            " indisprimary || regexp_replace(pg_get_indexdef(indexrelid), '^CREATE (UNIQUE )?INDEX \\S+ ON', '\\1ON')"
            " FROM pg_index"
            " WHERE indrelid = c.oid ORDER BY 1), c.relacl::text FROM pg_class c JOIN pg_policies p"
            " ON p.tablename = c.relname ORDER BY 1",
            user=OWNER,
        )

    before = made()
    assert all(closed and forced for _, closed, forced, *_ in before)
    Fleet(owner).create("data")
    for name in NAMES:
        rebuild(owner, named(name))
    assert made() == before
