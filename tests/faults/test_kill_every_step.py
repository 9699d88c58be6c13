"""kill -9 at every step of every command, then one reconcile: nothing leaks, nothing live is harmed, all is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kill_rounds import COMMANDS, kill_and_heal, steps_of


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["fake", "local"])
def test_kill_at_every_step(tmp_path: Path, kind: str, command: str) -> None:
    steps = steps_of(tmp_path, kind, "", command)
    assert len(steps) >= 5, f"{command} has more boundaries than {steps}"
    for step in steps:
        kill_and_heal(tmp_path, kind, "", command, step)
