"""What the command line writes for a browser, over Postgres."""

from tests.integration.cli.test_timeline_in_a_browser import test_what_the_command_writes_opens

__all__ = ["test_what_the_command_writes_opens"]
