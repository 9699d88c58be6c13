"""Rebuilding beside live traffic, and finding every row that is not what the log says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from nexus.domain import events as ev
from nexus.domain import pool_events as pe
from nexus.domain.errors import SchemaMismatch
from nexus.domain.ports import EventStore, RowWrite, Scalar, Table
from nexus.domain.sandbox import stream_id
from nexus.projections import rebuild as rebuilding
from nexus.projections import replay
from nexus.projections import verify as verifying
from nexus.projections.catalog import ALL, is_plain, key, named
from nexus.projections.projector import Projector
from nexus.projections.queries import SandboxQueries
from nexus.projections.rebuild import RebuildInProgress, rebuild
from nexus.testing.store_contract.base import OpenStore
from nexus.testing.store_contract.reading import FromTheFuture
from tests.unit.domain import pool_story
from tests.unit.domain.story import requested, run_finished, run_started, started, stop_requested, stopped
from tests.unit.projections.fleet import ADA, Fleet, new_id

NAMES = [projection.name for projection in ALL]
PAUSE = 0.005
"""Seconds between a writer's lives: who appends without end outruns a rebuild of short pages."""


def tables(store: EventStore) -> dict[str, list[dict[str, Scalar]]]:
    return {
        table.name: store.views.query(f"SELECT * FROM {table.name} ORDER BY {', '.join(table.key)}")
        for projection in ALL
        for table in projection.tables
    }


@pytest.fixture
def lived(fleet: Fleet) -> Fleet:
    """Some sandboxes in all kinds of situations."""
    for number in range(12):
        sandbox_id = fleet.create(f"n{number}", labels={"n": str(number)})
        if number % 4:
            fleet.tell(sandbox_id, started(), run_started(f"ex_{number}"))
        if number % 4 > 1:
            fleet.tell(sandbox_id, run_finished(f"ex_{number}"))
        if number % 4 > 2:
            fleet.tell(sandbox_id, stop_requested(), stopped())
            fleet.tell(sandbox_id, ev.DriftObserved(kind="orphan", detail="found later"))
    for slot in range(4):
        told = (pool_story.ready(), pool_story.retired(), pe.PoolMemberRemoved())[:slot]
        fleet.member(*told, slot=slot)
    fleet.member(pool_story.ready(), pe.PoolMemberTaken(sandbox_id=sandbox_id))
    Projector(fleet.store).catch_up()
    return fleet


@pytest.mark.parametrize("page", [1, 2, 5, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_a_rebuild_makes_what_was_there(lived: Fleet, name: str, page: int) -> None:
    store = lived.store
    before = tables(store)
    told: list[int] = []
    rebuilt = rebuild(store, named(name), told.append, page=page)
    assert tables(store) == before
    assert (rebuilt.position, rebuilt.events, rebuilt.quarantined) == (store.head(), len(lived.positions()), 0)
    assert told == sorted(set(told))
    assert told[-1] == store.head()
    for table in named(name).tables:
        with pytest.raises(SchemaMismatch):
            store.views.query(f"SELECT * FROM {table.name}__aside")


@pytest.mark.parametrize("name", NAMES)
def test_a_rebuild_repairs(lived: Fleet, name: str) -> None:
    store = lived.store
    before = tables(store)
    for table in named(name).tables:
        for row in before[table.name][::2]:
            where = {column: row[column] for column in table.key}
            store.append([], rows=[RowWrite(table.name, where, None)])
    assert tables(store) != before
    assert not Projector(store).verify(name).is_equal
    Projector(store).rebuild(name)
    assert tables(store) == before


@pytest.mark.parametrize("name", NAMES)
def test_a_table_that_is_filled_has_its_indexes_when_it_takes_the_place(
    lived: Fleet, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    views, done = lived.store.views, list[str]()
    complete, swap = views.complete, views.swap

    def completed(tables: Sequence[Table]) -> None:
        assert [table.name for table in tables] == [f"{table.name}__aside" for table in named(name).tables]
        complete(tables)
        done.append("complete")

    def swapped(*given: Any, **more: Any) -> int | None:
        done.append("swap")
        return swap(*given, **more)

    monkeypatch.setattr(views, "complete", completed)
    monkeypatch.setattr(views, "swap", swapped)
    rebuild(lived.store, named(name))
    assert done == ["complete", "swap"]


def test_states_that_were_put_down_are_picked_up_again(lived: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_KEPT_STATES", 2)
    before = tables(lived.store)
    for name in NAMES:
        rebuild(lived.store, named(name), page=3)
    assert tables(lived.store) == before


@pytest.mark.parametrize("name", NAMES)
def test_what_is_appended_between_the_last_page_and_the_swap_is_there(lived: Fleet, name: str) -> None:
    late: list[tuple[str, str]] = []

    def append(_position: int) -> None:
        """After each look at the log, so after the last one, too."""
        sandbox_id = lived.create("late", labels={"late": "yes"})
        lived.tell(sandbox_id, started(), run_started(f"ex_{sandbox_id}"))
        late.append((sandbox_id, lived.member(pool_story.ready())))

    rebuilt = rebuild(lived.store, named(name), append)
    assert len(late) == (1 if is_plain(named(name)) else 2)
    assert rebuilt.position == lived.store.head()
    assert rebuilt.events < len(lived.positions())
    verdict = Projector(lived.store).verify(name)
    assert verdict.is_equal, str(verdict.difference)
    (table, *_) = named(name).tables
    sandbox_id, member_id = late[-1]
    column, wanted = ("member_id", member_id) if "member_id" in table.columns else ("sandbox_id", sandbox_id)
    found = lived.store.views.query(f"SELECT {column} FROM {table.name} WHERE {column} = :id", {"id": wanted})
    assert found == [{column: wanted}]


def test_rebuilds_under_load_lose_nothing(store: EventStore, reopen: OpenStore) -> None:
    """Four writers that go on appending while every view is rebuilt again and again, and read by others."""
    stop = threading.Event()

    def live_on(number: int) -> int:
        mine = reopen()
        fleet, lives = Fleet(mine), 0
        try:
            while not stop.wait(PAUSE):
                lives += 1
                sandbox_id = fleet.create(f"w{number}-{lives}", labels={"w": str(number)})
                fleet.tell(sandbox_id, started(), run_started(f"ex_{number}_{lives}"))
                fleet.tell(sandbox_id, run_finished(f"ex_{number}_{lives}"))
                if lives % 2:
                    fleet.tell(sandbox_id, stop_requested(), stopped())
                assert SandboxQueries(mine.views).get(sandbox_id) is not None, "seen by whoever wrote it"
            return lives
        finally:
            mine.close()

    def read_on() -> int:
        mine = reopen()
        most = 0
        try:
            queries = SandboxQueries(mine.views)
            while not stop.is_set():
                count = mine.views.query("SELECT count(*) AS n FROM sandboxes")[0]["n"]
                assert count >= most, "a row was gone for a moment"
                most = count
                queries.page(ADA, limit=5)
            return most
        finally:
            mine.close()

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(live_on, number) for number in range(3)]
        reader = pool.submit(read_on)
        try:
            for _ in range(3):
                for name in NAMES:
                    rebuild(store, named(name), page=50)
                    assert Projector(store).verify(name).is_equal
        finally:
            stop.set()
        lives = sum(writer.result(120) for writer in writers)
        assert reader.result(120) > 0
    projector = Projector(store)
    projector.catch_up()
    for name in NAMES:
        verdict = projector.verify(name)
        assert verdict.is_equal, str(verdict.difference)
    assert store.views.query("SELECT count(*) AS n FROM sandboxes") == [{"n": lives}]
    assert store.views.query("SELECT count(*) AS n FROM due") == [{"n": len(SandboxQueries(store.views).live())}]


# --- rebuilds that meet ----------------------------------------------------------------------------------------------
def test_an_abandoned_rebuild_is_taken_up_from_the_start(lived: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    store, before = lived.store, tables(lived.store)
    monkeypatch.setattr(rebuilding, "ABANDONED", 0.1)
    projection = named("due")
    aside = [RowWrite("due__aside", {"sandbox_id": "sb_left_behind"}, {"version": 1})]
    store.views.create([replace(projection.tables[0], name="due__aside")])
    store.views.advance(f"{key(projection)}:aside", None, 3, aside)
    rebuild(store, projection)
    assert tables(store) == before


def test_a_rebuild_that_goes_on_is_left_alone(lived: Fleet) -> None:
    store, projection = lived.store, named("due")

    done = threading.Event()

    def paced(_position: int) -> None:
        done.wait(0.02)

    def go_on() -> None:
        rebuild(store, projection, paced, page=1)

    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(go_on)
        try:
            while store.views.position(f"{key(projection)}:aside") is None and not run.done():
                pass
            with pytest.raises(RebuildInProgress):
                rebuild(store, projection)
        finally:
            done.set()
        run.result(60)
    assert Projector(store).verify("due").is_equal


def test_a_rebuild_that_was_overtaken_changes_nothing(lived: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding, "ABANDONED", 0.1)
    store, projection, before = lived.store, named("due"), tables(lived.store)
    aside = f"{key(projection)}:aside"

    told: list[int] = []

    def interfere(position: int) -> None:
        told.append(position)
        store.views.drop([], forget=[aside])
        store.views.advance(aside, None, position + 1, [])

    for page, pages in ((5, 1), (None, 1)):
        told.clear()
        with pytest.raises(RebuildInProgress):
            rebuild(store, projection, interfere, page=page)
        assert len(told) == pages, "it went on after it had been overtaken"
    assert tables(store) == before


# --- what cannot be replayed -----------------------------------------------------------------------------------------
def test_a_stream_from_the_future_keeps_its_last_known_row(lived: Fleet) -> None:
    store = lived.store
    sandbox_id = lived.create("traveller")
    lived.tell(sandbox_id, started())
    before = tables(store)
    lived.tell_strangely(stream_id(sandbox_id), 3, FromTheFuture(where="Mars"))
    for name in ("sandboxes", "due"):
        rebuilt = Projector(store).rebuild(name)
        assert rebuilt.quarantined == 1
        verdict = Projector(store).verify(name)
        assert verdict.is_equal, str(verdict.difference)
        assert verdict.quarantined == 1
    assert {name: rows for name, rows in tables(store).items() if name != "executions"} == {
        name: rows for name, rows in before.items() if name != "executions"
    }
    status = {one.name: one for one in Projector(store).status()}
    assert [poison.topic for poison in status["due"].quarantined] == ["sandbox.teleported"]
    assert store.views.query("SELECT DISTINCT projection FROM quarantine ORDER BY projection") == [
        {"projection": key(named("due"))},
        {"projection": key(named("sandboxes"))},
    ]


@pytest.mark.parametrize("page", [1, 7, 1000])
def test_a_row_that_no_column_takes_sets_its_stream_aside(lived: Fleet, page: int) -> None:
    store = lived.store
    before = tables(store)["sandboxes"]
    sandbox_id = new_id()
    lived.tell_strangely(stream_id(sandbox_id), 1, requested().model_copy(update={"ttl_seconds": 2**70}))
    after = lived.create("after it")
    lived.tell(after, started())
    for _ in range(2):
        rebuilt = rebuild(store, named("sandboxes"), page=page)
        assert (rebuilt.quarantined, rebuilt.events) == (1, len(lived.positions()))
        found = tables(store)["sandboxes"]
        assert [row for row in found if row["sandbox_id"] != after] == before
        assert [row["version"] for row in found if row["sandbox_id"] == after] == [2]
    (poison,) = Projector(store).status()[0].quarantined
    assert (poison.originator_id, poison.topic) == (stream_id(sandbox_id), ev.SandboxRequested.TOPIC)


@pytest.mark.parametrize("page", [1, 1000])
def test_a_stream_that_cannot_be_folded_is_set_aside(lived: Fleet, page: int) -> None:
    store = lived.store
    before = tables(store)
    lived.tell_strangely("sandbox-" + "0" * 32, 1, started())
    for name in ("sandboxes", "due"):
        assert rebuild(store, named(name), page=page).quarantined == 1
    assert tables(store) == before


def test_a_rebuild_ends_a_quarantine_that_has_no_cause_any_more(lived: Fleet) -> None:
    store = lived.store
    store.append(
        [], rows=[RowWrite("quarantine", {"projection": key(named("due")), "originator_id": "s"}, {"position": 1})]
    )
    store.append([], rows=[RowWrite("quarantine", {"projection": "other:1", "originator_id": "s"}, {"position": 1})])
    Projector(store).rebuild("due")
    assert store.views.query("SELECT projection FROM quarantine") == [{"projection": "other:1"}]


# --- verify ----------------------------------------------------------------------------------------------------------
def first_row(store: EventStore, table: str, key: Sequence[str]) -> dict[str, Scalar]:
    (row,) = store.views.query(f"SELECT * FROM {table} LIMIT 1")
    return {column: row[column] for column in key}


def changed(column: str, value: Scalar) -> Callable[[dict[str, Scalar]], dict[str, Scalar] | None]:
    return lambda _key: {column: value}


@pytest.mark.parametrize(
    ("name", "table", "column", "value"),
    [
        ("sandboxes", "sandboxes", "status", "paused"),
        ("sandboxes", "sandboxes", "version", 99),
        ("sandboxes", "sandboxes", "last_error", ""),
        ("sandboxes", "sandboxes", "remaining_seconds", 0.0),
        ("sandboxes", "sandbox_labels", "value", "other"),
        ("due", "due", "due_at", None),
        ("due", "due", "in_flight", 7),
        ("executions", "executions", "status", "finishing"),
        ("executions", "executions", "exit_code", 1),
    ],
)
def test_one_wrong_value_is_found_and_named(lived: Fleet, name: str, table: str, column: str, value: Scalar) -> None:
    store = lived.store
    (columns,) = [one.key for one in named(name).tables if one.name == table]
    where = first_row(store, table, columns)
    store.append([], rows=[RowWrite(table, where, {column: value})])
    verdict = Projector(store).verify(name)
    assert verdict.difference is not None
    found = verdict.difference
    assert (found.table, found.column, found.in_view, dict(found.key)) == (table, column, value, where)
    assert str(where[columns[0]]) in str(found)
    assert repr(value) in str(found)
    others = [other for other in NAMES if other != name]
    assert all(Projector(store).verify(other).is_equal for other in others)


@pytest.mark.parametrize(("name", "table"), [(one.name, table.name) for one in ALL for table in one.tables])
def test_a_missing_row_and_one_too_many_are_found(lived: Fleet, name: str, table: str) -> None:
    store = lived.store
    (columns,) = [one.key for one in named(name).tables if one.name == table]
    before = tables(store)
    where = first_row(store, table, columns)
    store.append([], rows=[RowWrite(table, where, None)])
    difference = Projector(store).verify(name).difference
    assert difference is not None
    assert (difference.table, dict(difference.key), difference.in_view) == (table, where, None)
    assert "lacks" in str(difference)
    Projector(store).rebuild(name)
    assert tables(store) == before
    ghost = {column: f"{value}0" for column, value in where.items()}
    store.append([], rows=[RowWrite(table, ghost, {})])
    difference = Projector(store).verify(name).difference
    assert difference is not None
    assert (difference.table, dict(difference.key), difference.by_replay) == (table, ghost, None)


@pytest.mark.parametrize("name", NAMES)
def test_what_changes_meanwhile_is_no_difference(lived: Fleet, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Events come between the replay and the comparison, and again between the two looks at one row."""
    store = lived.store
    sandbox_id = next(iter(lived.states))
    lived.tell(sandbox_id, started())
    runs = iter(range(1000))

    def live_on(*_: object) -> None:
        run = f"ex_late_{next(runs)}"
        lived.tell(sandbox_id, run_started(run), ev.DriftObserved(kind="restarted", detail="", incarnation=run))
        Projector(store).catch_up()
        lived.tell(sandbox_id, run_finished(run))
        lived.member(pool_story.ready())
        Projector(store).catch_up()

    suspects, row, looks = verifying._suspects, verifying._row, iter(range(3))
    judged: list[object] = []

    def late_suspects(*asked: Any) -> Any:
        live_on()
        found = suspects(*asked)
        judged.extend(found)
        return found

    def late_row(*asked: Any) -> Any:
        if next(looks, None) is not None:
            live_on()
        return row(*asked)

    monkeypatch.setattr(verifying, "_suspects", late_suspects)
    monkeypatch.setattr(verifying, "_row", late_row)
    verdict = Projector(store).verify(name)
    assert verdict.is_equal, str(verdict.difference)
    assert judged


def test_verify_leaves_nothing_behind(lived: Fleet) -> None:
    before = tables(lived.store)
    for name in NAMES:
        verdict = Projector(lived.store).verify(name)
        assert verdict.is_equal
        assert verdict.position == lived.store.head()
    assert tables(lived.store) == before
    assert lived.store.views.query("SELECT projection FROM projection_positions WHERE projection LIKE '%check'") == []


def test_an_empty_log_is_equal_to_itself(store: EventStore) -> None:
    for name in NAMES:
        assert Projector(store).verify(name).is_equal
        assert Projector(store).rebuild(name).events == 0
        assert Projector(store).verify(name).rows == 0


def test_what_a_killed_verification_left_is_removed_in_time(lived: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    store = lived.store
    with monkeypatch.context() as patched:
        patched.setattr(verifying, "_remove", lambda *_: None)
        assert Projector(store).verify("due").is_equal
    left = f"SELECT projection FROM projection_positions WHERE projection LIKE '{key(named('due'))}:check:%'"
    (found,) = store.views.query(left)
    table = f"due__check_{found['projection'].rpartition(':')[2]}"
    assert Projector(store).verify("due").is_equal
    assert store.views.query(f"SELECT count(*) AS n FROM {table}") != [{"n": 0}], "somebody may still be at it"
    monkeypatch.setattr(verifying, "_ABANDONED", -2.0)
    assert Projector(store).verify("due").is_equal
    assert store.views.query(left) == []
    with pytest.raises(SchemaMismatch):
        store.views.query(f"SELECT * FROM {table}")
