"""The command line's tests about timelines, over Postgres."""

from tests.integration.cli.test_timeline import *  # noqa: F403
