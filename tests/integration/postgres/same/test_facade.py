"""The facade's tests, over Postgres."""

from tests.unit.facade.test_facade import *  # noqa: F403
