"""The shapes of JSON, over Postgres."""

from tests.integration.cli.test_shapes import *  # noqa: F403
