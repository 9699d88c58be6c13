"""Verifying, and every question to the past, over Postgres."""

from tests.integration.cli.test_read_only import *  # noqa: F403

del test_an_auditor_may_only_read_the_file  # noqa: F821 - here it is a role: `test_an_auditors_role_may_only_select`
