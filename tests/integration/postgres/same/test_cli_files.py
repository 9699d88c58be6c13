"""The command line's tests about files, over Postgres."""

from tests.integration.cli.test_files import *  # noqa: F403
