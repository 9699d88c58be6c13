"""A table that is filled holds what following event by event would have written, whatever the runs went through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nexus.domain import events as ev
from nexus.domain.encoding import encode
from nexus.domain.ports import EventStore, RowsWrite, RowWrite, Scalar
from nexus.domain.sandbox import stream_id
from nexus.domain.values import to_text
from nexus.projections import filling, rebuild
from nexus.projections.catalog import PlainProjection
from nexus.projections.columns import RowsOf
from nexus.projections.executions import Executions, _rows
from nexus.projections.projector import Projector
from nexus.projections.rebuild import RebuildInProgress
from nexus.projections.replay import Poison
from nexus.projections.tables import EXECUTIONS, QUARANTINE
from nexus.testing.store_contract.reading import FromTheFuture
from tests.unit.domain.story import run_finished, run_started, started
from tests.unit.projections.fleet import Fleet, new_id

Rows = dict[tuple[Scalar, ...], dict[str, Scalar]]

STREAMS = [stream_id(new_id()) for _ in range(2)]


def lost(execution_id: str) -> ev.ExecutionLost:
    return ev.ExecutionLost(execution_id=execution_id, reason="its holder died")


def timed_out(execution_id: str) -> ev.ExecutionTimedOut:
    return ev.ExecutionTimedOut(**run_finished(execution_id).model_dump(exclude={"signal", "oom_killed"}))


KINDS = (run_started, run_finished, timed_out, lost)

logs = st.lists(st.tuples(st.sampled_from(STREAMS), st.sampled_from(KINDS), st.sampled_from("abc")), max_size=30)


def raw(envelopes: Sequence[ev.Envelope]) -> list[tuple[Any, ...]]:
    return [
        (
            number,
            one.originator_id,
            one.topic,
            one.event.VERSION,
            encode(one.event),
            to_text(one.occurred_at),
            one.tenant_id,
            one.actor,
            one.agent_id,
        )
        for number, one in enumerate(envelopes, 1)
    ]


def followed(envelopes: Sequence[ev.Envelope], projection: Executions | None = None) -> Rows:
    rows: Rows = {}
    for envelope in envelopes:
        for write in (projection or Executions()).apply(envelope):
            row = rows.setdefault(tuple(write.key.values()), dict.fromkeys(EXECUTIONS.columns))
            row.update(write.key)
            row.update(write.values or {})
    return rows


def filled(envelopes: Sequence[ev.Envelope], page: int, projection: PlainProjection | None = None) -> tuple[Rows, int]:
    """What a store would hold after it, and how many rows came with a key that was there."""
    rows: Rows = {}
    again = 0
    poisoned: dict[str, Poison] = {}
    fill = filling._Filling(projection or Executions(), poisoned)
    log = raw(envelopes)
    pages = [fill.rows(log[begin : begin + page]) for begin in range(0, len(log), page)]
    for row in [row for some in [*pages, fill.rest()] for row in some]:
        named = dict(zip(EXECUTIONS.columns, row, strict=True))
        key = tuple(named[column] for column in EXECUTIONS.key)
        again += key in rows
        rows[key] = named
    for late in fill.late("anywhere"):
        assert isinstance(late, RowsWrite)
        for row in late.rows:
            known = rows.setdefault(row[: len(late.key)], dict.fromkeys(EXECUTIONS.columns))
            known.update(zip((*late.key, *late.columns), row, strict=True))
    assert not poisoned
    return rows, again


@given(log=logs, page=st.integers(1, 9), most=st.integers(0, 3))
@example([(STREAMS[0], kind, "a") for kind in (run_started, run_finished)], 1, 0)
@example([(STREAMS[0], kind, "a") for kind in (run_finished, run_started)], 1, 3)
def test_any_log(log: list[tuple[str, Any, str]], page: int, most: int) -> None:
    fleet = Fleet(mock.Mock())
    envelopes = [fleet.envelopes(stream, 0, [kind(name)])[0] for stream, kind, name in log]
    begun = [(stream, name) for stream, kind, name in log if kind is run_started]
    with mock.patch.object(filling, "_MOST_BEGUN", most):
        rows, again = filled(envelopes, page)
    if again:  # whoever fills a real table finds out, and does it in the careful way
        assert len(begun) > len(set(begun))
    else:
        assert rows == followed(envelopes)


class Odd(Executions):
    """Two kinds of events begin a row, each with columns of its own; one kind neither begins nor ends it."""

    plain: ClassVar[Mapping[str, tuple[tuple[str, ...], RowsOf]]] = {
        topic: ((column,), partial(lambda column, events: _rows(events, *events.get(column)), column))
        for topic, column in {
            ev.ExecutionStarted.TOPIC: "language",
            ev.ExecutionTimedOut.TOPIC: "duration",
            ev.ExecutionFinished.TOPIC: "exit_code",
            ev.ExecutionLost.TOPIC: "reason",
        }.items()
    }
    begins: ClassVar[frozenset[str]] = frozenset({ev.ExecutionStarted.TOPIC, ev.ExecutionTimedOut.TOPIC})
    ends: ClassVar[frozenset[str]] = frozenset({ev.ExecutionLost.TOPIC})


@given(log=logs, page=st.integers(1, 9), most=st.integers(0, 3))
@example([(STREAMS[0], kind, "a") for kind in (run_started, timed_out, lost)], 3, 3)
@example([(STREAMS[0], kind, "a") for kind in (run_started, timed_out, lost)], 1, 3)
@example([(STREAMS[0], kind, "a") for kind in (run_started, run_finished)], 2, 3)
def test_any_log_of_another_read_model(log: list[tuple[str, Any, str]], page: int, most: int) -> None:
    fleet = Fleet(mock.Mock())
    envelopes = [fleet.envelopes(stream, 0, [kind(name)])[0] for stream, kind, name in log]
    with mock.patch.object(filling, "_MOST_BEGUN", most):
        rows, again = filled(envelopes, page, Odd())
    if not again:
        assert rows == followed(envelopes, Odd())


def test_a_row_goes_out_when_it_is_whole() -> None:
    fleet = Fleet(mock.Mock())
    fill = filling._Filling(Executions(), {})

    def told(*events: ev.Event) -> list[Scalar]:
        envelopes = [fleet.envelopes(STREAMS[0], 0, [event])[0] for event in events]
        return [row[0] for row in fill.rows(raw(envelopes))]

    assert told(run_started("a"), run_started("b")) == []
    assert told(run_started("c"), lost("b"), run_finished("c")) == ["b", "c"]
    assert [row[0] for row in fill.rest()] == ["a"]
    assert told(run_finished("a")) == []
    (late,) = fill.late(EXECUTIONS.name)
    assert [row[0] for row in late.rows] == ["a"]


def test_rows_go_out_unfinished_when_too_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "_MOST_BEGUN", 2)
    fill = filling._Filling(Executions(), {})
    log = [Fleet(mock.Mock()).envelopes(STREAMS[0], 0, [run_started(name)])[0] for name in "abc"]
    assert fill.rows(raw(log[:2])) == []
    assert [row[0] for row in fill.rows(raw(log[2:]))] == ["a", "b", "c"]


# --- in a store ------------------------------------------------------------------------------------------------------
def runs(fleet: Fleet, *kinds: Any) -> str:
    """A sandbox with two runs at a time."""
    sandbox_id = fleet.create()
    fleet.tell(sandbox_id, started())
    for number in range(4):
        fleet.tell(sandbox_id, run_started(f"ex_{number}"))
        if number:
            fleet.tell(sandbox_id, kinds[number % len(kinds)](f"ex_{number - 1}"))
    return sandbox_id


def rows_of(store: EventStore) -> list[dict[str, Scalar]]:
    return store.views.query("SELECT * FROM executions ORDER BY execution_id, sandbox_id")


def rebuilt(store: EventStore, page: int | None = None) -> rebuild.Rebuilt:
    done = rebuild.rebuild(store, Executions(), page=page)
    verdict = Projector(store).verify("executions")
    assert verdict.is_equal, str(verdict.difference)
    return done


@pytest.mark.parametrize(("most_begun", "most_late"), [(0, 0), (0, 50), (1, 1), (50, 50)])
@pytest.mark.parametrize("page", [1, 3, 50])
def test_with_little_room(
    store: EventStore, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, page: int, most_begun: int, most_late: int
) -> None:
    """Runs that go out before their end, and so many that came late that the rest is followed."""
    monkeypatch.setattr(filling, "_MOST_BEGUN", most_begun)
    monkeypatch.setattr(filling, "_MOST_LATE", most_late)
    runs(fleet, run_finished, timed_out, lost)
    runs(fleet, run_finished)
    Projector(store).catch_up()
    before = rows_of(store)
    filled_up: list[tuple[int | None, bool]] = []

    def noted(*given: Any) -> tuple[int | None, bool]:
        filled_up.append(filling.fill(*given))
        return filled_up[-1]

    monkeypatch.setattr(rebuild, "fill", noted)
    done = rebuilt(store, page)
    ((taken, goes_on),) = filled_up
    assert taken is not None
    assert goes_on == (most_late < 2 and page < 50), "followed from where too many came late"
    assert (taken < done.events) == goes_on
    assert (done.events, done.position) == (len(fleet.positions()), store.head())
    assert rows_of(store) == before
    assert {row["status"] for row in before} == {"finished", "timed_out", "lost", "running"}


def test_a_run_that_began_twice_is_taken_carefully(store: EventStore, fleet: Fleet) -> None:
    sandbox_id = runs(fleet, run_finished)
    version = fleet.states[sandbox_id].version
    again = run_started("ex_0").model_copy(update={"language": "bash"})
    fleet.tell_strangely(stream_id(sandbox_id), version + 1, again)
    fleet.tell_strangely(stream_id(sandbox_id), version + 2, lost("ex_3"))
    done = rebuilt(store)
    assert (done.events, done.quarantined) == (len(fleet.positions()), 0)
    statuses = {row["execution_id"]: (row["status"], row["language"]) for row in rows_of(store)}
    assert (statuses["ex_0"], statuses["ex_3"]) == (("running", "bash"), ("lost", "python"))


@pytest.mark.parametrize("page", [1, 50])
def test_what_cannot_be_read_or_stored_is_left_alone(store: EventStore, fleet: Fleet, page: int) -> None:
    well, strange, large = runs(fleet, run_finished), runs(fleet, run_finished), runs(fleet, run_finished)
    fleet.tell_strangely(stream_id(strange), fleet.states[strange].version + 1, FromTheFuture(where="Mars"))
    fleet.tell_strangely(stream_id(strange), fleet.states[strange].version + 2, run_finished("ex_3"))
    assert rebuilt(store, page).quarantined == 1
    huge = run_finished("ex_3").model_copy(update={"stdout_bytes": 2**63})
    fleet.tell_strangely(stream_id(large), fleet.states[large].version + 1, huge)
    fleet.tell(well, run_finished("ex_3"))
    assert rebuilt(store, page).quarantined == 2
    last = {row["sandbox_id"]: row["status"] for row in rows_of(store) if row["execution_id"] == "ex_3"}
    assert last == {well: "finished", strange: "running", large: "running"}


def test_a_quarantine_of_a_rebuild_that_never_ended_is_forgotten(store: EventStore, fleet: Fleet) -> None:
    sandbox_id = runs(fleet, run_finished)
    held = Poison(stream_id(sandbox_id), 1, "sandbox.created", 1, "an older program could not read it")
    aside = "executions:1:aside"
    store.views.advance(aside, None, 0, [held.row(aside)])
    with mock.patch.object(rebuild, "ABANDONED", 0.05):
        assert rebuilt(store).quarantined == 0
    assert len(rows_of(store)) == 4
    assert store.views.query(f"SELECT * FROM {QUARANTINE.name}") == []


@pytest.mark.parametrize("step", ["fill", "advance"])
def test_who_is_overtaken_leaves_the_table_in_use_alone(
    store: EventStore, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    runs(fleet, run_finished)
    Projector(store).catch_up()
    before = rows_of(store)
    store.append([], rows=[RowWrite(EXECUTIONS.name, {k: before[0][k] for k in EXECUTIONS.key}, {"language": "odd"})])
    before = rows_of(store)
    monkeypatch.setattr(store.views, step, lambda *_, **__: False)
    with pytest.raises(RebuildInProgress):
        rebuild.rebuild(store, Executions())
    assert rows_of(store) == before
