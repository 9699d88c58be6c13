"""The read models' tests, over Postgres."""

from tests.unit.projections.test_projector import *  # noqa: F403

del test_eight_that_prepare_at_once_agree  # noqa: F821 - here `nexus migrate` prepares: many at once in test_migrating
