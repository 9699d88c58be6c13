"""The command line's tests about events, over Postgres."""

from tests.integration.cli.test_events import *  # noqa: F403
