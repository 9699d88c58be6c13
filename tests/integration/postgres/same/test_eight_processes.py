"""Eight processes at once, over Postgres."""

from tests.integration.local.test_eight_processes import *  # noqa: F403
