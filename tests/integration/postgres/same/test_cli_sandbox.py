"""The command line's tests about sandboxes, over Postgres."""

from tests.integration.cli.test_sandbox import *  # noqa: F403
