"""Usage asked of a Postgres store."""

from tests.unit.engine.test_usage_report import *  # noqa: F403
