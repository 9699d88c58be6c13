"""The engine's tests, over Postgres."""

from tests.unit.engine.test_recovery import *  # noqa: F403
