"""Deciding on what is known, over Postgres."""

from tests.unit.engine.test_streams import *  # noqa: F403
