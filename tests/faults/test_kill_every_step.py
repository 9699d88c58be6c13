"""kill -9 at every step of every command, then one reconcile: nothing leaks, nothing live is harmed, all is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kill_rounds import COMMANDS, forked, kill_and_heal, steps_of
from tests.integration.sqlite.processes import may_fork
from tests.support.postgres import TestDatabase

pytestmark = may_fork


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["fake", "local"])
def test_kill_at_every_step(tmp_path: Path, database: TestDatabase | None, kind: str, command: str) -> None:
    url = "" if database is None else database.application
    steps = steps_of(tmp_path, kind, url, command)
    assert len(steps) >= 5, f"{command} has more boundaries than {steps}"
    for step in steps:
        kill_and_heal(tmp_path, kind, url, command, step, forked)
