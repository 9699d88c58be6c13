"""Every row of bad input through the command line, over Postgres."""

from tests.integration.bad_input.test_through_the_command_line import *  # noqa: F403
