"""What an operator can do about an aggregate that a read model left alone: look, try again, pass over the event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

from nexus.domain import events as ev
from nexus.domain.errors import InvalidInput, NotFound
from nexus.domain.ports import EventStore, RowWrite, Table
from nexus.domain.sandbox import stream_id
from nexus.domain.values import Principal
from nexus.projections import quarantine
from nexus.projections.catalog import named
from nexus.projections.follower import Follower
from nexus.projections.held import quarantined, skipped
from nexus.projections.projector import catch_up
from nexus.projections.rebuild import rebuild
from nexus.projections.verify import verify
from nexus.testing.store_contract.reading import FromTheFuture
from tests.unit.domain.story import run_finished, run_started, started
from tests.unit.projections.fleet import Fleet

OPERATOR = Principal("ops", is_admin=True)
TALLY = Table("tally", {"position": "integer", "stream": "text"}, ("position",))


class Moody:
    """A row for every event; takes none of the kinds that it is out of temper with."""

    name: ClassVar[str] = "tally"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[Table, ...]] = (TALLY,)
    refuses: ClassVar[set[str]] = set()
    unwritable: ClassVar[set[str]] = set()

    def apply(self, envelope: ev.Envelope) -> Sequence[RowWrite]:
        kind = envelope.event.kind if isinstance(envelope.event, ev.DriftObserved) else ""
        if kind in self.refuses:
            raise RuntimeError(f"no {kind} today")
        where = {"position": 2**70 if kind in self.unwritable else envelope.position}
        return (RowWrite(TALLY.name, where, {"stream": envelope.originator_id}),)


@pytest.fixture
def moody(store: EventStore) -> Iterator[Moody]:
    store.views.create([TALLY])
    yield Moody()
    Moody.refuses.clear()
    Moody.unwritable.clear()


def drift(kind: str) -> ev.DriftObserved:
    return ev.DriftObserved(kind=kind, detail="d")


def taken(store: EventStore) -> list[int]:
    return [row["position"] for row in store.views.query("SELECT position FROM tally ORDER BY position")]


def test_looking_at_it(store: EventStore, fleet: Fleet, moody: Moody) -> None:
    Moody.refuses.add("mud")
    ill = fleet.create()
    fleet.tell(ill, started(), drift("mud"), run_started())
    catch_up(store, moody)
    (held,) = quarantine.inspect(store, moody)
    assert (held.projection, held.poison.originator_id) == ("tally", stream_id(ill))
    assert held.poison.position == fleet.positions()[2]
    assert held.event is not None
    assert held.event.event == drift("mud")
    assert '"kind":"mud"' in held.payload
    assert "no mud today" in held.poison.error
    assert held.waiting == 2, "the poison and what came after it"


def test_an_event_that_cannot_be_read_is_shown_as_it_is_stored(store: EventStore, fleet: Fleet) -> None:
    strange = fleet.create()
    fleet.tell_strangely(stream_id(strange), 2, FromTheFuture(where="Mars"))
    executions = named("executions")
    catch_up(store, executions)  # type: ignore[arg-type]
    (held,) = quarantine.inspect(store, executions)
    assert held.payload == '{"where":"Mars"}'
    assert held.poison.topic == "sandbox.teleported"


@pytest.mark.parametrize("reference", ["sandbox", "stream"])
def test_trying_again_once_the_cause_is_gone(store: EventStore, fleet: Fleet, moody: Moody, reference: str) -> None:
    Moody.refuses.add("mud")
    ill, well = fleet.create(), fleet.create()
    fleet.tell(ill, started(), drift("mud"), run_started())
    fleet.tell(well, started())
    catch_up(store, moody)
    given = ill if reference == "sandbox" else stream_id(ill)
    poison = quarantine.retry(store, moody, given)
    assert poison is not None
    assert "no mud today" in poison.error
    assert len(taken(store)) == 4, "nothing has changed"
    Moody.refuses.clear()
    fleet.tell(well, run_started("ex_2"))  # not yet followed: it is not for the retry to take
    assert quarantine.retry(store, moody, given) is None
    assert taken(store) == fleet.positions()[:-1]
    assert quarantined(store.views, moody) == []
    fleet.tell(ill, run_finished())
    catch_up(store, moody)
    assert taken(store) == fleet.positions(), "it follows again"
    with pytest.raises(NotFound, match="does not leave"):
        quarantine.retry(store, moody, given)


def test_a_worker_that_goes_on_meanwhile_learns_of_it(store: EventStore, fleet: Fleet, moody: Moody) -> None:
    """It knew of the quarantine, and would pass over the aggregate for ever."""
    Moody.refuses.add("mud")
    store.views.begin([TALLY], "tally:1")
    worker = Follower(store, moody)
    ill = fleet.create()
    fleet.tell(ill, started(), drift("mud"))
    assert worker.step() == 3
    Moody.refuses.clear()
    assert quarantine.retry(store, moody, ill) is None
    fleet.tell(ill, run_started())
    assert worker.step() == 1
    assert taken(store) == fleet.positions()


def test_letting_go_in_the_middle_of_a_workers_page_loses_nothing(
    store: EventStore, fleet: Fleet, moody: Moody
) -> None:
    """The page was read under the old quarantine: its aggregate is put aside again rather than left with a gap."""
    Moody.refuses.add("mud")
    store.views.begin([TALLY], "tally:1")
    worker = Follower(store, moody)
    ill = fleet.create()
    fleet.tell(ill, started(), drift("mud"))
    worker.step()
    Moody.refuses.clear()
    fleet.tell(ill, run_started())
    page = store.read(worker.position or 0)
    rows = worker.rows(page)
    assert quarantine.retry(store, moody, ill) is None
    assert worker.write(page[-1].position or 0, rows)
    assert [one.originator_id for one in quarantined(store.views, moody)] == [stream_id(ill)]
    assert quarantine.retry(store, moody, ill) is None
    assert taken(store) == fleet.positions()


def test_passing_over_the_event(store: EventStore, fleet: Fleet, moody: Moody) -> None:
    Moody.refuses.add("mud")
    ill = fleet.create()
    fleet.tell(ill, started(), drift("mud"), run_started())
    catch_up(store, moody)
    assert quarantine.pass_over(store, moody, ill, OPERATOR) is None
    poison = fleet.positions()[2]
    everything_else = [position for position in fleet.positions() if position != poison]
    assert taken(store) == everything_else
    assert skipped(store.views, "tally") == {poison}
    (row,) = store.views.query("SELECT actor, error, topic FROM skipped")
    assert row == {"actor": "user:ops", "error": "RuntimeError: no mud today", "topic": "sandbox.drift_observed"}
    fleet.tell(ill, run_finished())
    catch_up(store, moody)
    assert taken(store) == [*everything_else, fleet.positions()[-1]], "a new follower passes over it, too"
    verdict = verify(store, moody)
    assert verdict.is_equal, str(verdict.difference)
    rebuilt = rebuild(store, moody)
    assert rebuilt.quarantined == 1, "a rebuild tries everything again"
    assert skipped(store.views, "tally") == frozenset()


def test_a_second_poison_behind_the_first(store: EventStore, fleet: Fleet, moody: Moody) -> None:
    Moody.refuses.update({"mud", "rain"})
    ill = fleet.create()
    fleet.tell(ill, started(), drift("mud"), run_started(), drift("rain"), run_finished())
    catch_up(store, moody)
    next_one = quarantine.pass_over(store, moody, ill, OPERATOR)
    assert next_one is not None
    assert next_one.position == fleet.positions()[4]
    assert taken(store) == [fleet.positions()[number] for number in (0, 1, 3)]
    assert quarantine.pass_over(store, moody, ill, OPERATOR) is None
    assert taken(store) == [fleet.positions()[number] for number in (0, 1, 3, 5)]


def test_a_value_that_no_column_takes(store: EventStore, fleet: Fleet, moody: Moody) -> None:
    Moody.unwritable.add("flood")
    ill = fleet.create()
    fleet.tell(ill, started(), drift("flood"), run_started())
    catch_up(store, moody)
    poison = quarantine.retry(store, moody, ill)
    assert poison is not None
    assert poison.position == fleet.positions()[2]
    assert quarantine.pass_over(store, moody, ill, OPERATOR) is None
    assert taken(store) == [fleet.positions()[number] for number in (0, 1, 3)]


def test_states_have_no_gaps(store: EventStore, fleet: Fleet) -> None:
    """A sandbox of which no state can be made is not made up: only a program that reads the event helps."""
    strange = fleet.create()
    fleet.tell_strangely(stream_id(strange), 2, FromTheFuture(where="Mars"))
    sandboxes = named("sandboxes")
    rebuild(store, sandboxes)
    assert len(quarantined(store.views, sandboxes)) == 1
    with pytest.raises(InvalidInput, match="gap"):
        quarantine.pass_over(store, sandboxes, strange, OPERATOR)
    assert quarantine.retry(store, sandboxes, strange) is not None
    assert len(quarantined(store.views, sandboxes)) == 1
