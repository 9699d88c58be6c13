"""The command line's tests about sandboxes, over Postgres."""

from tests.integration.cli.test_sandbox import *  # noqa: F403

del test_wrong_use_is_status_2_and_records_nothing  # noqa: F821 - wrong input of every kind: see test_bad_input_command_line
