from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nexus.adapters.stores.sqlite import SQLiteReading
from nexus.domain.ports import Reading
from tests.support.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def open_reading(world: World) -> Callable[[], Reading]:
    """An auditor's look at the world's store."""
    return lambda: SQLiteReading(world.folder / "nexus.db")
