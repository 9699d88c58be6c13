"""Both loopback clouds behind the real engine: one server of each for a worker process, a new store for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.clouds.sides import SIDES, Side
from tests.integration.clouds.world import World
from tests.support.cloud.e2b import E2BCloud
from tests.support.cloud.modal import ModalCloud

OpenWorld = Callable[[str, str], World]


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, E2BCloud | ModalCloud]]:
    with E2BCloud() as e2b, ModalCloud() as modal:
        yield {"e2b": e2b, "modal": modal}


@pytest.fixture
def open_world(
    servers: dict[str, E2BCloud | ModalCloud], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OpenWorld]:
    opened: list[tuple[World, Side]] = []

    def open_one(cloud: str, fault: str) -> World:
        side = SIDES[cloud](servers[cloud])
        for name, value in side.environment(fault).items():
            monkeypatch.setenv(name, value)
        world = World(tmp_path, side, fault)
        opened.append((world, side))
        return world

    yield open_one
    for world, side in opened:
        side.heal()
        world.close()
        side.clear()
