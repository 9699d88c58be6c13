"""The facts' tests, over Postgres."""

from tests.unit.projections.test_facts import *  # noqa: F403
