"""The command line's tests about events, over Postgres."""

from tests.integration.cli.test_events import *  # noqa: F403

del test_wrong_use  # noqa: F821 - wrong input of every kind: see test_bad_input_command_line
