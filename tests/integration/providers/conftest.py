"""The four providers as an installation's settings name them: two on this machine, two clouds on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cloud.e2b import E2BCloud
from tests.support.cloud.modal import ModalCloud
from tests.support.dockerd import Engine
from tests.support.dockerd_fixtures import docker_engine, docker_image

__all__ = ["docker_engine", "docker_image"]

PROVIDERS = ("local", "docker", "e2b", "modal")


@pytest.fixture(scope="module")
def clouds() -> Iterator[dict[str, str]]:
    """Environment variables that lead the SDKs to the loopback clouds."""
    with E2BCloud() as e2b, ModalCloud() as modal:
        yield {**e2b.environment(), **modal.environment()}


@pytest.fixture
def installation(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clouds: dict[str, str],
    docker_engine: Engine,
    docker_image: str,
) -> Path:
    """A data folder, and the environment in which every provider can be reached."""
    here = {
        **clouds,
        "NEXUS_DATA_DIR": str(tmp_path),
        "NEXUS_USER": "victim",
        "NEXUS_DOCKER_HOST": docker_engine.host,
        "NEXUS_DOCKER_IMAGE": docker_image,
    }
    for name, value in here.items():
        monkeypatch.setenv(name, value)
    return tmp_path
