"""The command line as a process, over Postgres."""

from __future__ import annotations

import pytest

from tests.integration.cli.console import Console
from tests.integration.cli.test_processes import *  # noqa: F403
from tests.integration.cli.test_processes import test_it_works_whatever_the_environment_says as whatever

# The embedded store's file needs a folder that can be written, and room; what this store needs: see test_outages.
del test_a_data_folder_that_cannot_be_made, test_a_read_only_home, test_a_full_disk_behind_the_store  # noqa: F821
# Most surroundings are the terminal's and the streams'; those that reach the driver or the server's session: below.
del test_it_works_whatever_the_environment_says  # noqa: F821


@pytest.fixture
def imports_of_the_store() -> set[str]:
    """Its driver, and what that needs; a look at the read models opens the whole store."""
    return {"psycopg", "asyncio", "logging", "eventsourcing", "pydantic"}


@pytest.mark.parametrize(
    "env",
    [{"TZ": "Pacific/Kiritimati"}, {"TZ": "\x01"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"HOME": "/nonexistent"}],
    ids=str,
)
def test_it_works_whatever_the_servers_session_is_told(nexus: Console, env: dict[str, str | None]) -> None:
    whatever(nexus, env)
