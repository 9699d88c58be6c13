"""The engine's tests, over Postgres."""

from tests.unit.engine.test_as_of import *  # noqa: F403
