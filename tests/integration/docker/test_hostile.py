"""Every hostile program against a container with the default profile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from nexus.adapters.providers.docker import DockerProvider
from nexus.domain.provider import Provider
from nexus.testing.hostile.suite import HostileSuite
from tests.support.dockerd import Engine
from tests.support.dockerd_fixtures import docker_engine, docker_image

__all__ = ["docker_engine", "docker_image"]


class TestDocker(HostileSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def open_provider(
        cls, docker_engine: Engine, docker_image: str, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Callable[[], Provider]]:
        folder = tmp_path_factory.mktemp("agents")
        yield lambda: DockerProvider(docker_engine.host, image=docker_image, folder=folder)
        assert not list(folder.iterdir()), "sandboxes were left behind"
