"""The command line's tests about the past, over Postgres."""

from tests.integration.cli.test_past import *  # noqa: F403

del test_seal_checkpoint_verify  # noqa: F821 - it forges the embedded store's file
