"""What the list of runs holds after each kind of end."""

from __future__ import annotations

import pytest

from nexus.domain import events as ev
from nexus.domain.ports import EventStore
from nexus.domain.values import to_text
from nexus.projections.executions import Executions
from nexus.projections.projector import Projector
from nexus.projections.queries import SandboxQueries
from nexus.projections.views import ExecutionView
from tests.unit.domain.story import at, run_finished, run_started, started
from tests.unit.projections.fleet import Fleet


@pytest.fixture
def sandbox_id(fleet: Fleet) -> str:
    sandbox_id = fleet.create()
    fleet.tell(sandbox_id, started())
    return sandbox_id


def seen(store: EventStore, queries: SandboxQueries, execution_id: str) -> ExecutionView:
    Projector(store).catch_up("executions")
    view = queries.execution(execution_id)
    assert view is not None
    return view


def test_running(store: EventStore, fleet: Fleet, queries: SandboxQueries, sandbox_id: str) -> None:
    fleet.tell(sandbox_id, run_started("ex_1"), at=at(1))
    view = seen(store, queries, "ex_1")
    assert (view.sandbox_id, view.status, view.language, view.timeout) == (sandbox_id, "running", "python", 30)
    assert (view.started_at, view.finished_at, view.exit_code) == (at(1), None, None)
    assert (view.actor, view.code_bytes, view.code_sha256) == ("user:ada", 11, "0" * 64)


def test_finished(store: EventStore, fleet: Fleet, queries: SandboxQueries, sandbox_id: str) -> None:
    ended = run_finished("ex_1").model_copy(update={"exit_code": 137, "signal": 9, "oom_killed": True})
    fleet.tell(sandbox_id, run_started("ex_1"), ended, at=at(2))
    view = seen(store, queries, "ex_1")
    assert (view.status, view.exit_code, view.signal, view.oom_killed) == ("finished", 137, 9, True)
    assert (view.duration, view.stdout_bytes, view.truncated, view.finished_at) == (0.5, 3, False, at(2))
    assert view.to_dict()["finished_at"] == to_text(at(2))


def test_timed_out(store: EventStore, fleet: Fleet, queries: SandboxQueries, sandbox_id: str) -> None:
    facts = run_finished("ex_1").model_dump(exclude={"signal", "oom_killed"}) | {"truncated": True}
    fleet.tell(sandbox_id, run_started("ex_1"), ev.ExecutionTimedOut(**facts))
    view = seen(store, queries, "ex_1")
    assert (view.status, view.truncated, view.signal) == ("timed_out", True, None)


def test_lost(store: EventStore, fleet: Fleet, queries: SandboxQueries, sandbox_id: str) -> None:
    fleet.tell(sandbox_id, run_started("ex_1"), ev.ExecutionLost(execution_id="ex_1", reason="its holder died"))
    view = seen(store, queries, "ex_1")
    assert (view.status, view.reason, view.exit_code) == ("lost", "its holder died", None)


def test_the_same_id_in_two_sandboxes_is_two_runs(
    store: EventStore, fleet: Fleet, queries: SandboxQueries, sandbox_id: str
) -> None:
    other = fleet.create()
    fleet.tell(other, started(), run_started("ex_1"), ev.ExecutionLost(execution_id="ex_1", reason="gone"))
    fleet.tell(sandbox_id, run_started("ex_1"))
    Projector(store).catch_up()
    assert [view.status for view in queries.executions(other)] == ["lost"]
    assert [view.status for view in queries.executions(sandbox_id)] == ["running"]


def test_runs_of_a_sandbox(store: EventStore, fleet: Fleet, queries: SandboxQueries, sandbox_id: str) -> None:
    for number in range(5):
        fleet.tell(sandbox_id, run_started(f"ex_{number}"), at=at(number))
        if number % 2:
            fleet.tell(sandbox_id, run_finished(f"ex_{number}"), at=at(number + 0.5))
    Projector(store).catch_up()

    def ids(**filters: object) -> list[str]:
        return [view.execution_id for view in queries.executions(sandbox_id, **filters)]  # type: ignore[arg-type]

    assert ids() == ["ex_4", "ex_3", "ex_2", "ex_1", "ex_0"]
    assert ids(newest_first=False, limit=2) == ["ex_0", "ex_1"]
    assert ids(status="finished") == ["ex_3", "ex_1"]
    assert queries.execution("ex_unknown") is None
    assert queries.executions("sb_unknown") == []


def test_other_events_change_nothing(fleet: Fleet) -> None:
    projection = Executions()
    name = ev.NameClaimed(name="n", sandbox_id="sb_1")
    for event in (started(), name):
        (envelope,) = fleet.envelopes("sandbox-1", 0, [event])
        assert projection.apply(envelope) == ()
