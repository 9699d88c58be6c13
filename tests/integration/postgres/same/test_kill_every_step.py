"""kill -9 at every step, over Postgres, with real sandboxes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kill_rounds import COMMANDS
from tests.faults.test_kill_every_step import *  # noqa: F403
from tests.faults.test_kill_every_step import pytestmark as may_fork
from tests.faults.test_kill_every_step import test_kill_at_every_step as kill
from tests.support.postgres import TestDatabase

del test_kill_at_every_step  # noqa: F821 - those of the fake provider: in test_postgres_kills, with two workers alive
pytestmark = may_fork


@pytest.mark.parametrize("command", COMMANDS)
def test_kill_with_real_sandboxes(tmp_path: Path, database: TestDatabase, command: str) -> None:
    kill(tmp_path, database, "local", command)
