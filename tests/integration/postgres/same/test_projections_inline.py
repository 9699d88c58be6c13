"""The read models' tests, over Postgres."""

from tests.unit.projections.test_inline import *  # noqa: F403
