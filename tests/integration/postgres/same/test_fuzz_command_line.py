"""Whatever is typed, over Postgres."""

from tests.fuzz.test_command_line import *  # noqa: F403

del test_a_terminal_sees_no_control_characters  # noqa: F821 - all that programs print: test_cli_terminal
