"""The engine's tests, over Postgres."""

from tests.unit.engine.test_why import *  # noqa: F403
