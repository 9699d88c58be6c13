"""kill -9 at every step of filling the warm pool, taking from it and emptying it, then one reconcile."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus.domain.pool import PoolPlan
from nexus.domain.values import MemberState
from nexus.domain.warm_pool import WarmPool
from nexus.engine.service import Engine
from tests.faults.kill_rounds import ADMIN, Victim, clean_up, forked, started, victim
from tests.integration.sqlite.processes import may_fork
from tests.support import postgres
from tests.support.dockerd import Engine as DockerEngine
from tests.support.dockerd_fixtures import docker_engine, docker_image
from tests.support.victim import OWNER, make_engine

__all__ = ["docker_engine", "docker_image"]

COMMANDS = ("fill", "take", "drain")
LIKE_ANOTHER = ("append.before", ":begin", ":end")
"""Steps at which nothing has changed since the one before."""


@pytest.fixture
def installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker_engine: DockerEngine, docker_image: str
) -> Path:
    monkeypatch.setenv("NEXUS_DOCKER_HOST", docker_engine.host)
    monkeypatch.setenv("NEXUS_DOCKER_IMAGE", docker_image)
    return tmp_path


def prepare(engine: Engine, command: str) -> None:
    """An empty pool, or one that has what the command needs."""
    engine.pool.drain(ADMIN)
    if command != "fill":
        report = engine.pool.tend()
        assert [member.status for member in engine.pool.status(ADMIN).members] == [MemberState.READY], report.problems


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Empty for the embedded store."""
    if request.param == "sqlite":
        yield ""
        return
    with postgres.database(prepared=True) as database:
        yield database.application


def kill_and_heal(folder: Path, kind: str, url: str, command: str, die_at: str, carry: Victim) -> None:
    with make_engine(folder, kind, url) as engine:
        prepare(engine, command)
        assert carry(folder, kind, url, command, die_at) == -signal.SIGKILL, f"{command} did not die at {die_at}"
        try:
            report = engine.reconcile(ADMIN)
            assert report.problems == []
            check(engine, kind)
            engine.pool.tend()
            assert [m.status for m in engine.pool.status(ADMIN).members] == [MemberState.READY], (
                "it can be filled again"
            )
            check(engine, kind)
        finally:
            clean_up(engine)


def check(engine: Engine, kind: str) -> None:
    """Members and sandboxes are exactly what there is."""
    provider = engine.providers.get(kind)
    assert isinstance(provider, WarmPool)
    members = engine.pool.status(ADMIN).members
    assert {member.status for member in members} <= {MemberState.READY}
    assert sorted(m.member_id for m in members) == sorted(
        seen.member_id for seen in provider.pooled(engine.store.installation)
    )
    page = engine.list(ADMIN, all_users=True, states=["creating", "active", "paused"]).sandboxes
    owned = [seen.sandbox_id for seen in provider.owned(engine.store.installation)]
    assert [view.sandbox_id for view in page] == owned
    for view in page:
        assert engine.run(OWNER, view.sandbox_id, language="bash", code="echo works").exit_code == 0


def steps_of(folder: Path, kind: str, url: str, command: str) -> list[str]:
    with make_engine(folder, kind, url) as engine:
        prepare(engine, command)
        done = victim(folder, kind, url, command)
        assert done.returncode == 0, done.stderr
        clean_up(engine)
    steps: list[str] = json.loads(done.stdout)
    return [step for step in steps if not step.split("#")[0].endswith(LIKE_ANOTHER)]


@may_fork
@pytest.mark.parametrize("command", COMMANDS)
def test_kill_at_every_step(tmp_path: Path, url: str, command: str) -> None:
    steps = steps_of(tmp_path, "fake", url, command)
    assert len(steps) >= 4, f"{command} has more boundaries than {steps}"
    for step in steps:
        kill_and_heal(tmp_path, "fake", url, command, step, forked)


@pytest.mark.parametrize(
    ("url", "command", "step"),
    [
        ("sqlite", "fill", "pool.intent#0"),
        ("sqlite", "fill", "pool.effect#0"),
        ("sqlite", "take", "create.intent#0"),
        ("sqlite", "take", "docker.rename#0"),
        ("sqlite", "take", "pool.adopted#0"),
        ("sqlite", "drain", "pool.retired#0"),
        ("sqlite", "drain", "pool.withdrawn#0"),
        ("postgres", "fill", "pool.effect#0"),
        ("postgres", "take", "docker.rename#0"),
        ("postgres", "drain", "pool.retired#0"),
    ],
    indirect=["url"],
)
def test_kill_between_the_log_and_the_engine(installation: Path, url: str, command: str, step: str) -> None:
    kill_and_heal(installation, "docker", url, command, step, started)


def test_the_victims_pool_is_the_one_that_is_checked(tmp_path: Path, url: str) -> None:
    with make_engine(tmp_path, "fake", url) as engine:
        assert engine.pool.plan == PoolPlan("fake", {"default": 1}, total=1)
