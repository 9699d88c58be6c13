"""Whatever the order of commands: rows written with the appends are the rows of a replay."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus.adapters.stores.sqlite import SQLiteStore
from nexus.domain.decisions import decide
from nexus.domain.errors import NexusError
from nexus.domain.ports import EventStore, Table
from nexus.domain.sandbox import fold, stream_id
from nexus.domain.values import SandboxState
from nexus.projections import inline
from nexus.projections.catalog import ALL
from nexus.projections.projector import Projector, prepare
from nexus.projections.queries import SandboxQueries
from nexus.projections.tables import DUE, SANDBOX_LABELS, SANDBOXES
from nexus.projections.views import SandboxView
from tests.unit.domain.story import START
from tests.unit.domain.test_any_order import command_of, steps
from tests.unit.projections.fleet import Fleet

LABELS = st.text(max_size=3).filter(str.isprintable)
"""What the door lets in."""


@pytest.fixture(scope="module")
def store() -> Iterator[EventStore]:
    """One for all examples: each tells of a sandbox of its own."""
    with TemporaryDirectory() as folder:
        opened = SQLiteStore(Path(folder) / "nexus.db")
        prepare(opened)
        yield opened
        opened.close()


def live(store: EventStore, table: Table, sandbox_id: str) -> list[dict[str, object]]:
    order = ", ".join(table.key)
    return store.views.query(f"SELECT * FROM {table.name} WHERE sandbox_id = :id ORDER BY {order}", {"id": sandbox_id})


def check_any_story(store: EventStore, orders: list[tuple[type, int, int, int, int]], labels: dict[str, str]) -> None:
    fleet = Fleet(store)
    sandbox_id = fleet.create(labels=labels)
    now = START
    for kind, seconds, stale, run, length in orders:
        now += timedelta(seconds=seconds)
        state = fleet.states[sandbox_id]
        command = command_of(kind, state, state.attempt - stale, run, length)
        try:
            events = decide(command, copy.deepcopy(state), now)
        except NexusError:
            continue
        if events:
            fleet.tell(sandbox_id, *events, at=now)

    replayed = fold(None, store.load(stream_id(sandbox_id)))
    assert replayed is not None
    assert replayed == fleet.states[sandbox_id]
    for table in (SANDBOXES, SANDBOX_LABELS, DUE):
        expected = [
            {**dict.fromkeys(table.columns), **row.key, **row.values}
            for row in inline.rows(replayed)
            if row.table == table.name and row.values is not None
        ]
        assert live(store, table, sandbox_id) == expected
    queries = SandboxQueries(store.views)
    assert queries.get(sandbox_id) == SandboxView.of(replayed)
    assert (sandbox_id in queries.live()) == (replayed.state is not SandboxState.STOPPED)


def test_any_story(store: EventStore) -> None:
    @settings(max_examples=60, deadline=None)
    @given(orders=steps(), labels=st.dictionaries(st.sampled_from("abc"), LABELS, max_size=3))
    def run(orders: list[tuple[type, int, int, int, int]], labels: dict[str, str]) -> None:
        check_any_story(store, orders, labels)

    run()
    projector = Projector(store)
    before = {
        table.name: store.views.query(f"SELECT * FROM {table.name}") for table in (SANDBOXES, SANDBOX_LABELS, DUE)
    }
    for projection in ALL:
        verdict = projector.verify(projection.name)
        assert verdict.is_equal, str(verdict.difference)
        assert verdict.quarantined == 0
        projector.rebuild(projection.name)
        assert projector.verify(projection.name).is_equal
    for name, rows in before.items():
        rebuilt = store.views.query(f"SELECT * FROM {name}")
        assert sorted(map(repr, rebuilt)) == sorted(map(repr, rows))
    assert before[SANDBOXES.name]
