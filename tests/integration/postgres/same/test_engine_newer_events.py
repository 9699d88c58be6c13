"""The engine's tests, over Postgres."""

from tests.unit.engine.test_newer_events import *  # noqa: F403
