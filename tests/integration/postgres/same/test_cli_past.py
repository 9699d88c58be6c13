"""The command line's tests about the past, over Postgres."""

from tests.integration.cli.test_past import *  # noqa: F403

del test_seal_checkpoint_verify  # noqa: F821 - it forges the embedded store's file
del test_what_is_no_checkpoint, test_a_moment_that_is_none  # noqa: F821 - wrong input: see test_bad_input_command_line
