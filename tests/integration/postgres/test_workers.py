"""Several workers without a leader: what is due is done in time, once; ends and deaths of workers harm nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nexus.adapters.stores.postgres import PostgresStore
from nexus.domain import events as ev
from nexus.domain.sandbox import sandbox_id_of
from nexus.domain.values import Principal
from nexus.engine.service import Engine
from nexus.engine.worker import Chore, Schedule, Worker
from nexus.projections.catalog import ALL
from nexus.projections.projector import Projector
from nexus.testing.store_contract.base import everything
from tests.support.postgres import TestDatabase
from tests.support.postgres_process import last_line, make_engine, processes, workers
from tests.support.waiting import until

OWNER, ADMIN = Principal(user_id="ann"), Principal(user_id="root", is_admin=True)
PATIENCE = 60.0


@pytest.fixture
def engine(prepared: TestDatabase, tmp_path: Path) -> Iterator[Engine]:
    with make_engine(tmp_path, prepared.application) as engine:
        yield engine


def live(engine: Engine) -> int:
    return len(engine.queries.live())


# --- expiry ----------------------------------------------------------------------------------------------------------
FLEET, SWEEP = 1000, 10.0


def test_four_workers_expire_a_thousand_sandboxes_once_and_in_time(
    engine: Engine, prepared: TestDatabase, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: engine.create(OWNER, f"n{number}", ttl_minutes=1), range(FLEET)))
    assert live(engine) == FLEET
    # One worker alone would need longer for all of them than the workers' turns lie apart.
    engine.providers.get("fake").cloud.slow("destroy", 0.03)  # type: ignore[attr-defined]
    with processes(workers(tmp_path, prepared.application, 4, sweep=SWEEP, reconcile=3600)) as four:
        (tmp_path / "ahead").write_text("120")
        until(lambda: live(engine) == 0, seconds=SWEEP + 5)
        for worker in four:
            worker.send_signal(signal.SIGTERM)
        shares = [last_line(worker) for worker in four]
    claimed = [sandbox_id for share in shares for sandbox_id in share]
    assert len(claimed) == len(set(claimed)) == FLEET, "each by one worker"
    assert sum(bool(share) for share in shares) > 1, "the work was shared"
    stops: dict[str | None, list[str]] = {}
    for envelope in everything(engine.store):
        if isinstance(envelope.event, ev.StopRequested | ev.SandboxStopped):
            stops.setdefault(sandbox_id_of(envelope.originator_id), []).append(
                f"{type(envelope.event).__name__} {envelope.event.reason}"
            )
    assert len(stops) == FLEET
    assert set(map(tuple, stops.values())) == {("StopRequested expired", "SandboxStopped expired")}
    assert engine.providers.get("fake").cloud.resources() == []  # type: ignore[attr-defined]


# --- coming and going ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_ends_leaves_the_rest_to_the_others(
    engine: Engine, prepared: TestDatabase, tmp_path: Path, number: signal.Signals
) -> None:
    for sandbox in range(60):
        engine.create(OWNER, f"n{sandbox}", ttl_minutes=1)
    with processes(workers(tmp_path, prepared.application, 2, sweep=0.3, reconcile=1.0)) as (first, second):
        (tmp_path / "ahead").write_text("120")
        until(lambda: live(engine) < 60)
        first.send_signal(number)
        first.wait(PATIENCE)
        assert first.returncode == (0 if number == signal.SIGTERM else -number)
        until(lambda: live(engine) == 0)
        assert second.poll() is None
    report = engine.reconcile(ADMIN)
    assert (report.problems, report.orphans, report.lost) == ([], [], [])
    assert engine.providers.get("fake").cloud.resources() == []  # type: ignore[attr-defined]


def test_a_drained_worker_has_finished_what_it_had_begun(engine: Engine) -> None:
    cloud = engine.providers.get("fake").cloud  # type: ignore[attr-defined]
    view = engine.create(OWNER, "data", ttl_minutes=1)
    cloud.slow("destroy", 0.5)
    (cloud_ahead := Path(engine.store._file)).write_text("120")  # type: ignore[attr-defined]
    worker = Worker(engine, Schedule(sweep=0.05, reconcile=3600))
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(worker.run)
        until(lambda: engine.streams.get(view.sandbox_id).pending is not None)
        worker.stop()
        run.result(PATIENCE)
    assert engine.status(OWNER, view.sandbox_id).status == "stopped"
    assert cloud_ahead.exists()


def test_shared_rounds_are_held_by_one_worker_at_a_time(engine: Engine) -> None:
    rounds: list[str] = []
    crew = [
        Worker(
            engine,
            Schedule(sweep=3600, reconcile=3600),
            chores=[
                Chore("shared", 3600, lambda name=name: rounds.append(name), shared=True),  # type: ignore[misc]
                Chore("own", 3600, lambda name=name: rounds.append(f"own {name}")),  # type: ignore[misc]
            ],
        )
        for name in "abc"
    ]
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(worker.run) for worker in crew]
        until(lambda: len(rounds) >= 4)
        for worker in crew:
            worker.stop()
        for run in runs:
            run.result(PATIENCE)
    assert sorted(one for one in rounds if one.startswith("own")) == ["own a", "own b", "own c"]
    assert len(rounds) == 4


def test_a_chore_that_fails_is_tried_again_and_keeps_nothing_else_from_its_time(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise RuntimeError("out of luck")

    worker = Worker(engine, Schedule(sweep=0.05, reconcile=3600), chores=[Chore("luckless", 0.02, fail)])
    view = engine.create(OWNER, "data", ttl_minutes=1)
    Path(engine.store._file).write_text("120")  # type: ignore[attr-defined]
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(worker.run)
        until(lambda: len(tries) > 2 and engine.status(OWNER, view.sandbox_id).status == "stopped")
        worker.stop()
        run.result(PATIENCE)
    assert "luckless failed" in caplog.text


def test_read_models_follow_without_being_asked(engine: Engine) -> None:
    worker = Worker(engine, Schedule(sweep=3600, reconcile=3600))
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(worker.run)
        view = engine.create(OWNER, "data")
        execution = engine.run(OWNER, "data", code="1").execution_id
        until(lambda: [one.execution_id for one in engine.queries.executions(view.sandbox_id)] == [execution])
        worker.stop()
        run.result(PATIENCE)


# --- everything at once ----------------------------------------------------------------------------------------------
ACTIONABLE = {
    "done", "name_taken", "illegal_transition", "busy", "sandbox_not_found", "superseded", "concurrent_modification",
    "idempotency_mismatch", "operation_failed", "execution_lost", "provider_gone", "provider_not_running",
}  # fmt: skip
"""How a command among many others may end: each tells its caller what to do next."""


CROWD_SECONDS = int(os.environ.get("NEXUS_CROWD_SECONDS", "4"))
"""`scripts/soak` makes it a minute."""


@pytest.mark.timeout(120 + 4 * CROWD_SECONDS)
def test_api_processes_and_workers_together(engine: Engine, prepared: TestDatabase, tmp_path: Path) -> None:
    """Eight that give commands, four that clean up, and two of them killed in the middle."""
    url = prepared.application
    api = [["api", tmp_path, url, CROWD_SECONDS, seed] for seed in range(8)]
    crew = workers(tmp_path, url, 4, sweep=0.5, reconcile=1.0)
    with processes([*api, *crew]) as everybody:
        until(lambda: engine.store.head() and live(engine) > 0)
        for victim in (everybody[0], everybody[-1]):
            victim.kill()
        told = [last_line(process) for process in everybody[1:8]]
        for worker in everybody[8:-1]:
            worker.send_signal(signal.SIGTERM)
            last_line(worker)
    done = {code: sum(one.get(code, 0) for one in told) for code in set().union(*told)}
    assert set(done) <= ACTIONABLE, done
    assert done["done"] > 10 * CROWD_SECONDS, done
    for _ in range(3):
        engine.reconcile(ADMIN)
    cloud = engine.providers.get("fake").cloud  # type: ignore[attr-defined]
    assert cloud.repeated() == []
    assert {one.sandbox_id for one in cloud.resources()} == set(engine.queries.live())
    assert engine.queries.in_flight() == []
    with PostgresStoreOf(prepared.owner) as owner:
        projector = Projector(owner)
        projector.catch_up()
        for projection in ALL:
            verdict = projector.verify(projection.name)
            assert verdict.is_equal, str(verdict.difference)


class PostgresStoreOf:
    """A store that is closed at the end of the `with`."""

    def __init__(self, url: str) -> None:
        self._store = PostgresStore(url)

    def __enter__(self) -> PostgresStore:
        return self._store

    def __exit__(self, *_: object) -> None:
        self._store.close()
