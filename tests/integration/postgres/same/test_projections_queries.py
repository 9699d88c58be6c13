"""The read models' tests, over Postgres."""

from tests.unit.projections.test_queries import *  # noqa: F403
