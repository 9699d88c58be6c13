"""The contract suite over the Docker provider: by the agent's socket, through a remote engine, and without Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from nexus.adapters.providers.docker import DockerProvider
from nexus.domain.provider import Capabilities, Provider, Ref
from nexus.testing.provider_contract import ProviderContract
from nexus.testing.provider_contract.base import OpenProvider
from tests.support.dockerd import Engine
from tests.support.dockerd_fixtures import Doorway, bare_image, docker_engine, docker_image, remote_engine

__all__ = ["bare_image", "docker_engine", "docker_image", "remote_engine"]


class DockerContract(ProviderContract):
    overrun: ClassVar[float] = 1.0

    def deadline(self, provider: Provider, ref: Ref) -> datetime | None:
        assert isinstance(provider, DockerProvider)
        left = provider.time_left(ref)
        return None if left is None else datetime.now(UTC) + timedelta(seconds=left)


class TestBySocket(DockerContract):
    @pytest.fixture
    def open_provider(self, docker_engine: Engine, docker_image: str, tmp_path: Path) -> Iterator[OpenProvider]:
        folder = tmp_path.parent / f"{tmp_path.name}-agents"  # not in the folder with the host's secrets
        yield lambda: DockerProvider(docker_engine.host, image=docker_image, folder=folder)
        assert not folder.exists() or not list(folder.iterdir()), "the suite left something behind"


class TestThroughARemoteEngine(DockerContract):
    @pytest.fixture
    def open_provider(self, remote_engine: Doorway, docker_image: str, tmp_path: Path) -> OpenProvider:
        return lambda: DockerProvider(remote_engine.host, image=docker_image, folder=tmp_path / "never-made")


class BareDocker(DockerProvider):
    """What an image without Python has."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, languages=("bash",), native_ttl=False)


class TestWithoutPython(DockerContract):
    @pytest.fixture
    def open_provider(self, docker_engine: Engine, bare_image: str, tmp_path: Path) -> OpenProvider:
        folder = tmp_path.parent / f"{tmp_path.name}-agents"
        return lambda: BareDocker(docker_engine.host, image=bare_image, folder=folder)
