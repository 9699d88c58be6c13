"""The read models' tests, over Postgres."""

from tests.unit.projections.test_executions import *  # noqa: F403
