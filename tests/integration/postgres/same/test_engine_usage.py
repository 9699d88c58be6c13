"""The engine's tests, over Postgres."""

from tests.unit.engine.test_usage import *  # noqa: F403
