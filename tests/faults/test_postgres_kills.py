"""kill -9 at every step of every command, with two workers alive: they alone put it right, whoever is faster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus.engine.service import Engine
from tests.faults.kill_rounds import ADMIN, COMMANDS, check, clean_up, prepare, steps_of, victim
from tests.support import postgres
from tests.support.postgres import TestDatabase
from tests.support.postgres_process import processes, workers
from tests.support.victim import make_engine

PATIENCE = 30.0


@pytest.fixture
def database() -> Iterator[TestDatabase]:
    with postgres.database(prepared=True) as database:
        yield database


@pytest.mark.parametrize("command", COMMANDS)
def test_two_workers_heal_what_a_kill_leaves(tmp_path: Path, database: TestDatabase, command: str) -> None:
    url = database.application
    steps = steps_of(tmp_path, "fake", url, command)
    assert len(steps) >= 5, f"{command} has more boundaries than {steps}"
    with processes(workers(tmp_path, url, 2, sweep=0.2, reconcile=0.5)) as crew:
        for step in steps:
            with make_engine(tmp_path, "fake", url) as engine:
                bystander = prepare(engine, command)
                died = victim(tmp_path, "fake", url, command, step)
                assert died.returncode == -9, (step, died.returncode, died.stderr)
                until_at_rest(engine, step)
                check(engine, "fake", command, bystander)
                clean_up(engine)
        assert [worker.poll() for worker in crew] == [None, None]


def until_at_rest(engine: Engine, step: str) -> None:
    """Nothing is in flight, and resources and live sandboxes are the same set: by the workers' doing."""
    deadline = time.monotonic() + PATIENCE
    while True:
        resources = {seen.sandbox_id for seen in engine.providers.get("fake").owned(engine.store.installation)}
        live = {view.sandbox_id for view in engine.list(ADMIN, all_users=True).sandboxes if view.status != "stopped"}
        if not engine.queries.in_flight() and resources == live:
            return
        assert time.monotonic() < deadline, f"killed at {step}, and never put right: {resources ^ live}"
        time.sleep(0.05)
