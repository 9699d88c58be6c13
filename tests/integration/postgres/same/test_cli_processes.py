"""The command line as a process, over Postgres."""

from __future__ import annotations

import pytest

from tests.integration.cli.console import Console
from tests.integration.cli.test_processes import *  # noqa: F403
from tests.integration.cli.test_processes import HEAVY, SDKS
from tests.integration.cli.test_processes import test_closed_streams as closed
from tests.integration.cli.test_processes import test_imports as imports
from tests.integration.cli.test_processes import test_it_works_whatever_the_environment_says as whatever

# The embedded store's file needs a folder that can be written, and room; what this store needs: see test_outages.
del test_a_data_folder_that_cannot_be_made, test_a_read_only_home, test_a_full_disk_behind_the_store  # noqa: F821
# Several on one data folder: on one database there are eight, in test_eight_processes.
del test_several_processes_share_one_data_folder  # noqa: F821
# Each of these is called below with what reaches the driver, or the server's session.
del test_it_works_whatever_the_environment_says, test_closed_streams, test_imports  # noqa: F821


@pytest.mark.parametrize("env", [{"TZ": "Pacific/Kiritimati", "LC_ALL": "C"}, {"HOME": "/nonexistent"}], ids=str)
def test_it_works_whatever_the_servers_session_is_told(nexus: Console, env: dict[str, str | None]) -> None:
    whatever(nexus, env)


def test_no_connection_gets_the_number_of_a_closed_stream(nexus: Console) -> None:
    closed(nexus, ">&- 2>&- <&-")


@pytest.fixture
def imports_of_the_store() -> set[str]:
    """Its driver, and what that needs."""
    return {"psycopg", "asyncio", "logging"}


@pytest.mark.parametrize(
    ("arguments", "never"),
    [
        (["sandbox", "list"], HEAVY),
        (["sandbox", "status", "box"], HEAVY),
        (["sandbox", "run", "box", "-c", "out x"], {*SDKS, "rich"}),
        (["events", "list"], {*SDKS, "rich", "transitions"}),
        (["config", "show"], {*HEAVY, "psycopg.pq", "sqlite3"}),
    ],
    ids=["list", "status", "run", "events", "no store"],
)
def test_what_a_call_imports(
    nexus: Console, arguments: list[str], never: set[str], imports_of_the_store: set[str]
) -> None:
    imports(nexus, arguments, never, imports_of_the_store)
