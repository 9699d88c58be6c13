"""Every row of bad input through `NexusFS`, over Postgres."""

from tests.integration.bad_input.test_through_python import *  # noqa: F403
