"""Following the log: exactly once, whoever does it; past what cannot be taken; never behind a store's back."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from nexus.adapters.stores.sqlite import SQLiteStore
from nexus.domain import events as ev
from nexus.domain.errors import InvalidInput, SchemaMismatch, StoreError
from nexus.domain.ports import EventStore, RowWrite, Table
from nexus.domain.sandbox import stream_id
from nexus.projections import catalog, inline, projector
from nexus.projections.catalog import key
from nexus.projections.executions import Executions
from nexus.projections.follower import Follower
from nexus.projections.held import quarantined
from nexus.projections.projector import Projector, catch_up, prepare
from nexus.projections.queries import SandboxQueries
from nexus.projections.replay import coalesced
from nexus.projections.tables import DUE
from nexus.testing.store_contract.base import OpenStore
from nexus.testing.store_contract.reading import FromTheFuture
from tests.unit.domain.story import run_finished, run_started, started
from tests.unit.projections.fleet import Fleet

TALLY = Table("tally", {"position": "integer", "stream": "text", "topic": "text"}, ("position",))


class Tally:
    """One row for every event, in parts, so that one applied twice or never would show."""

    name: ClassVar[str] = "tally"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[Table, ...]] = (TALLY,)

    def apply(self, envelope: ev.Envelope) -> Sequence[RowWrite]:
        where = {"position": envelope.position}
        return (
            RowWrite(TALLY.name, where, {"stream": envelope.originator_id}),
            RowWrite(TALLY.name, where, {"topic": envelope.topic}),
        )


class Picky(Tally):
    """Trips over an event that speaks of poison."""

    how: ClassVar[str] = "raises"

    def apply(self, envelope: ev.Envelope) -> Sequence[RowWrite]:
        if isinstance(envelope.event, ev.DriftObserved) and envelope.event.kind == "poison":
            if self.how == "raises":
                raise RuntimeError("not to my taste")
            return (RowWrite(TALLY.name, {"position": envelope.position}, {"topic": 2**70}),)
        return super().apply(envelope)


class Unwritable(Picky):
    how: ClassVar[str] = "makes a row that no column takes"


def drift(kind: str = "noted") -> ev.DriftObserved:
    return ev.DriftObserved(kind=kind, detail="")


def tally(store: EventStore) -> list[int]:
    return [row["position"] for row in store.views.query("SELECT position FROM tally ORDER BY position")]


@pytest.fixture
def store(store: EventStore) -> EventStore:
    store.views.create([TALLY])
    return store


# --- exactly once ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", [1, 3, 1000])
def test_catching_up(store: EventStore, fleet: Fleet, page: int) -> None:
    assert catch_up(store, Tally(), page=page) == 0
    for _ in range(4):
        fleet.tell(fleet.create(), started(), run_started())
    assert catch_up(store, Tally(), page=page) == store.head()
    assert tally(store) == fleet.positions()
    assert len(tally(store)) == 12
    assert catch_up(store, Tally(), page=page) == store.head()


def test_many_projectors_apply_every_event_once(store: EventStore, fleet: Fleet, reopen: OpenStore) -> None:
    """A page that two of them read is written by one: the other finds the position moved, and its rows nowhere."""
    written: list[int] = []

    class Counted(Tally):
        def apply(self, envelope: ev.Envelope) -> Sequence[RowWrite]:
            return (RowWrite(TALLY.name, {"position": envelope.position}, {"topic": threading.current_thread().name}),)

    line = threading.Barrier(5, timeout=60)
    stop = threading.Event()

    def project() -> int:
        mine = reopen()
        pages = 0
        try:
            follower = Follower(mine, Counted())
            line.wait()
            while True:
                finished = stop.is_set()
                taken = follower.step(7)
                pages += taken or 0
                if taken == 0 and finished:
                    return pages
                if taken == 0:
                    mine.wait(follower.position or 0, 0.02)
        finally:
            mine.close()

    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(project) for _ in range(4)]
        try:
            line.wait()
            for _ in range(60):
                fleet.tell(fleet.create(), started(), run_started())
        finally:
            stop.set()
        written = [run.result(60) for run in runs]
    assert sum(written) == 180
    assert tally(store) == fleet.positions()
    assert store.views.position(key(Counted())) == store.head()


def test_rows_and_position_move_together(store: EventStore, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.tell(fleet.create(), started())

    def lost(*_: object, **_more: object) -> bool:
        raise StoreError("the answer was lost")

    with monkeypatch.context() as patched:
        patched.setattr(type(store.views), "advance", lost)
        with pytest.raises(StoreError):
            catch_up(store, Tally())
    assert (tally(store), store.views.position("tally:1")) == ([], None)
    assert catch_up(store, Tally()) == store.head()
    assert len(tally(store)) == 2


# --- poison ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", [1, 4, 1000])
@pytest.mark.parametrize("projection", [Picky(), Unwritable()], ids=lambda one: one.how)
def test_poison_sets_its_aggregate_aside_and_no_other(
    store: EventStore, fleet: Fleet, projection: Picky, page: int
) -> None:
    ill, well = fleet.create(), fleet.create()
    fleet.tell(ill, started(), drift("poison"), run_started())
    fleet.tell(well, started(), run_started())
    also_ill = fleet.create()
    fleet.tell(also_ill, drift("poison"))
    assert catch_up(store, projection, page=page) == store.head()
    events = fleet.positions()
    healthy = [events[number - 1] for number in (1, 2, 3, 6, 7, 8)]
    assert tally(store) == healthy
    first, second = quarantined(store.views, projection)
    assert (first.originator_id, first.position, first.topic) == (stream_id(ill), events[3], "sandbox.drift_observed")
    assert second.originator_id == stream_id(also_ill)
    assert first.error
    fleet.tell(ill, run_finished())
    fleet.tell(well, run_finished())
    assert catch_up(store, projection, page=page) == store.head()
    assert tally(store) == [*healthy, fleet.positions()[10]], "set aside for good, also for a projector that was new"


def test_an_event_from_the_future_sets_its_aggregate_aside(store: EventStore, fleet: Fleet) -> None:
    strange, plain = fleet.create(), fleet.create()
    fleet.tell_strangely(stream_id(strange), 2, FromTheFuture(where="Mars"))
    fleet.tell(plain, started(), run_started("ex_1"))
    projector = Projector(store)
    projector.catch_up()
    (poison,) = [one for status in projector.status() for one in status.quarantined]
    position = fleet.positions()[2]
    assert (poison.originator_id, poison.topic, poison.position) == (stream_id(strange), "sandbox.teleported", position)
    assert "sandbox.teleported" in poison.error
    assert [view.execution_id for view in SandboxQueries(store.views).executions(plain)] == ["ex_1"]


# --- status ----------------------------------------------------------------------------------------------------------
def test_status(store: EventStore, fleet: Fleet) -> None:
    projector = Projector(store)
    fleet.tell(fleet.create(), started(), run_started())
    behind = {status.name: status for status in projector.status()}
    head, events = store.head(), len(store.read(0))
    assert (behind["sandboxes"].kind, behind["sandboxes"].lag, behind["sandboxes"].position) == ("inline", 0, head)
    follows = behind["executions"]
    assert (follows.kind, follows.lag, follows.head) == ("following", events, head)
    projector.catch_up("executions")
    projector.catch_up("sandboxes")
    assert [status.lag for status in projector.status()] == [0] * len(catalog.ALL)
    with pytest.raises(InvalidInput) as caught:
        projector.catch_up("execution")
    assert "executions" in caught.value.hint


def test_every_projection_is_in_the_catalogue_with_its_tables() -> None:
    from nexus.projections import TABLES

    names = [table.name for projection in catalog.ALL for table in projection.tables]
    assert len(names) == len(set(names))
    assert {*names, "quarantine"} <= {table.name for table in TABLES}


# --- versions and backups --------------------------------------------------------------------------------------------
def test_a_view_ahead_of_the_log_is_an_alarm(store: EventStore, fleet: Fleet) -> None:
    """The log was restored from an older backup, the view was not."""
    fleet.create()
    head = store.head()
    store.views.advance(key(Executions()), None, head + 4, [])
    with pytest.raises(StoreError) as caught:
        catch_up(store, Executions())
    assert (caught.value.details["position"], caught.value.details["head"]) == (head + 4, head)
    assert "backup" in caught.value.hint


class NewTally(Tally):
    version: ClassVar[int] = 2
    tables: ClassVar[tuple[Table, ...]] = (
        Table("tally", {**TALLY.columns, "actor": "text"}, ("position",), (("actor",),)),
    )

    def apply(self, envelope: ev.Envelope) -> Sequence[RowWrite]:
        return (RowWrite("tally", {"position": envelope.position}, {"actor": envelope.actor}),)


def test_a_newer_program_rebuilds_and_the_older_one_steps_back(store: EventStore, fleet: Fleet) -> None:
    fleet.tell(fleet.create(), started())
    older = Follower(store, Tally())
    assert older.step() == 2
    fleet.tell(fleet.create(), started())
    assert catch_up(store, NewTally()) == store.head()
    rows = store.views.query("SELECT * FROM tally ORDER BY position")
    assert [(row["position"], row["actor"], row["topic"]) for row in rows] == [
        (position, "user:ada", None) for position in fleet.positions()
    ]
    fleet.create()
    assert older.step() is None, "its position is gone"
    with pytest.raises(SchemaMismatch):
        catch_up(store, Tally())
    assert catch_up(store, NewTally()) == store.head()


def test_prepare_rebuilds_what_an_older_version_left(
    store: EventStore, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox_id = fleet.create()
    fleet.tell(sandbox_id, started())

    class NewDue(inline.Due):
        version: ClassVar[int] = inline.Due.version + 1
        tables: ClassVar[tuple[Table, ...]] = (Table("due", {**DUE.columns, "note": "text"}, DUE.key, DUE.indexes),)

        def rows(self, state: object, before: int = 0) -> list[RowWrite]:
            (row,) = super().rows(state, before)  # type: ignore[arg-type]
            return [RowWrite(row.table, row.key, {**(row.values or {}), "note": "new"}, row.newer)]

    monkeypatch.setattr(projector, "INLINE", (inline.Sandboxes(), NewDue()))
    prepare(store)
    assert [(row["sandbox_id"], row["note"]) for row in store.views.query("SELECT * FROM due")] == [(sandbox_id, "new")]
    prepare(store)
    monkeypatch.undo()
    with pytest.raises(SchemaMismatch):
        prepare(store)


def test_eight_that_prepare_at_once_agree(tmp_path: Path) -> None:
    """On a log that has events and no views: one of them builds, the others wait for it or build on their own."""
    file = tmp_path / "old.db"
    first = SQLiteStore(file, tables=catalog_tables())
    fleet = Fleet(first)
    for _ in range(20):
        fleet.tell(fleet.create(), started())
    line = threading.Barrier(8, timeout=60)

    def start() -> None:
        mine = SQLiteStore(file)
        try:
            line.wait()
            prepare(mine)
        finally:
            mine.close()

    with ThreadPoolExecutor(8) as pool:
        for run in [pool.submit(start) for _ in range(8)]:
            run.result(120)
    assert all(Projector(first).verify(projection.name).is_equal for projection in catalog.ALL)
    assert [status.lag for status in Projector(first).status()][:2] == [0, 0]
    first.close()


def catalog_tables() -> tuple[Table, ...]:
    from nexus.projections import TABLES

    return TABLES


# --- fewer statements ------------------------------------------------------------------------------------------------
def test_writes_of_one_row_become_one() -> None:
    def row(number: int, **values: int) -> RowWrite:
        return RowWrite("t", {"id": number}, values)

    gone = RowWrite("t", {"id": 1}, None)
    assert coalesced([row(1, a=1), row(2, a=5), row(1, b=2), row(1, a=3)]) == [row(2, a=5), row(1, a=3, b=2)]
    assert coalesced([row(1, a=1), gone]) == [gone]
    assert coalesced([row(1, a=1), gone, row(1, b=2), row(1, c=3)]) == [gone, row(1, b=2, c=3)]
    assert coalesced([row(2, b=1), row(1, a=1), row(3, b=2)]) == [row(1, a=1), row(2, b=1), row(3, b=2)]
