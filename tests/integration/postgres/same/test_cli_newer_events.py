"""Events that a newer program wrote, on the command line and over Postgres."""

from tests.integration.cli.test_newer_events import *  # noqa: F403
