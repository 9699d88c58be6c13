"""The engine's tests, over Postgres."""

from nexus.adapters.stores.postgres import PostgresStore
from tests.support.postgres import TestDatabase
from tests.support.world import World
from tests.unit.engine.test_refusals import *  # noqa: F403
from tests.unit.engine.test_refusals import a_refusal, read_models_are_true

del test_every_command_in_every_state  # noqa: F821 - the domain's rules, not the store's
del test_the_read_models_equal_a_replay  # noqa: F821 - verifying makes tables, which the application may not


def test_the_owner_finds_the_read_models_equal_to_a_replay(world: World, prepared: TestDatabase) -> None:
    a_refusal(world)
    store = PostgresStore(prepared.owner)
    try:
        read_models_are_true(store)
    finally:
        store.close()
