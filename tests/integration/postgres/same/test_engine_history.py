"""The engine's tests, over Postgres."""

from tests.unit.engine.test_history import *  # noqa: F403
