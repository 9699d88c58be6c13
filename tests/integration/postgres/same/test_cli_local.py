"""The command line with real sandboxes, over Postgres."""

from tests.integration.cli.test_local import *  # noqa: F403
