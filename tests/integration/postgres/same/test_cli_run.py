"""The command line's tests about runs, over Postgres."""

from tests.integration.cli.test_run import *  # noqa: F403

# Wrong input of every kind: see test_bad_input_command_line.
del test_wrong_use_is_status_2_and_records_nothing  # noqa: F821
