"""The command line's tests about usage, over Postgres."""

from tests.integration.cli.test_usage import *  # noqa: F403
