"""The quarantine's tests, over Postgres."""

from tests.unit.projections.test_quarantine import *  # noqa: F403
