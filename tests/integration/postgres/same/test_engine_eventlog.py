"""The engine's tests, over Postgres."""

from tests.unit.engine.test_eventlog import *  # noqa: F403
