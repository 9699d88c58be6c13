"""The engine's tests, over Postgres."""

from tests.unit.engine.test_journal import *  # noqa: F403
