"""The command line's tests on a terminal, over Postgres."""

from tests.integration.cli.test_terminal import *  # noqa: F403
