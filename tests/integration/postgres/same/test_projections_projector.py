"""The read models' tests, over Postgres."""

from tests.unit.projections.test_projector import *  # noqa: F403
