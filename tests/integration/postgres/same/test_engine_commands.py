"""The engine's tests, over Postgres."""

from tests.support.postgres import TestDatabase, dump
from tests.support.world import ANN, World
from tests.unit.engine.test_commands import *  # noqa: F403

del test_env_values_reach_the_sandbox_and_no_event  # noqa: F821 - it reads the embedded store's file


def test_env_values_reach_the_sandbox_and_no_table(world: World, prepared: TestDatabase) -> None:
    view = world.engine.create(ANN, "data", env={"TOKEN": "canary-7f3a"})
    assert world.cloud.resources()[0].env["TOKEN"] == "canary-7f3a"
    everything = dump(prepared)
    assert view.sandbox_id in everything
    assert "canary-7f3a" not in everything
