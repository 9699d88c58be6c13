"""kill -9 at every step of filling the warm pool, taking from it and emptying it, then one reconcile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nexus.domain.pool import PoolPlan
from nexus.domain.values import MemberState
from nexus.domain.warm_pool import WarmPool
from nexus.engine.service import Engine
from tests.faults.kill_rounds import ADMIN, clean_up, victim
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


def kill_and_heal(folder: Path, kind: str, command: str, die_at: str) -> None:
    with make_engine(folder, kind) as engine:
        prepare(engine, command)
        died = victim(folder, kind, "", command, die_at)
        assert died.returncode == -9, (died.returncode, died.stderr)
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


def steps_of(folder: Path, kind: str, command: str) -> list[str]:
    with make_engine(folder, kind) as engine:
        prepare(engine, command)
        done = victim(folder, kind, "", command)
        assert done.returncode == 0, done.stderr
        clean_up(engine)
    steps: list[str] = json.loads(done.stdout)
    return [step for step in steps if not step.split("#")[0].endswith(LIKE_ANOTHER)]


@pytest.mark.parametrize("command", COMMANDS)
def test_kill_at_every_step(tmp_path: Path, command: str) -> None:
    steps = steps_of(tmp_path, "fake", command)
    assert len(steps) >= 4, f"{command} has more boundaries than {steps}"
    for step in steps:
        kill_and_heal(tmp_path, "fake", command, step)


@pytest.mark.parametrize(
    ("command", "step"),
    [
        ("fill", "pool.intent#0"),
        ("fill", "pool.effect#0"),
        ("take", "create.intent#0"),
        ("take", "docker.rename#0"),
        ("take", "pool.adopted#0"),
        ("drain", "pool.retired#0"),
        ("drain", "pool.withdrawn#0"),
    ],
)
def test_kill_between_the_log_and_the_engine(installation: Path, command: str, step: str) -> None:
    kill_and_heal(installation, "docker", command, step)


def test_the_victims_pool_is_the_one_that_is_checked(tmp_path: Path) -> None:
    with make_engine(tmp_path, "fake") as engine:
        assert engine.pool.plan == PoolPlan("fake", {"default": 1}, total=1)
