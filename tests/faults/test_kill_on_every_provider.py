"""kill -9 at every step, on Docker and on both clouds' real SDKs, then one reconcile."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kill_rounds import COMMANDS, kill_and_heal, steps_of
from tests.integration.providers.conftest import clouds, docker_engine, docker_image, installation

__all__ = ["clouds", "docker_engine", "docker_image", "installation"]


@pytest.mark.xdist_group("four-providers")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["docker", "e2b", "modal"])
def test_kill_at_every_step(installation: Path, kind: str, command: str) -> None:
    for step in steps_of(installation, kind, "", command):
        kill_and_heal(installation, kind, "", command, step)
