"""A provider on the private engine, sandboxes that are removed whatever happens, and the engine's own client."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import pytest

from nexus.adapters.providers.docker import DockerProvider
from nexus.domain.provider import ExecutionResult, Limits, Observed, OutputSink, Ref, RunRequest, SandboxSpec, Template
from tests.support.dockerd import Engine
from tests.support.dockerd_fixtures import Doorway, bare_image, docker_engine, docker_image, remote_engine

__all__ = ["Doorway", "bare_image", "docker_engine", "docker_image", "remote_engine"]

PATIENCE = 30.0


@dataclass
class Lab:
    """One provider and what a test makes with it."""

    provider: DockerProvider
    engine: Any
    """The SDK's own low-level client: for what happens behind the provider's back."""
    installation: str = field(default_factory=lambda: f"lab-{uuid.uuid4().hex[:12]}")
    made: list[SandboxSpec] = field(default_factory=list)

    def spec(self, **fields: Any) -> SandboxSpec:
        spec = SandboxSpec(
            sandbox_id=f"sb_{uuid.uuid4().hex}",
            generation=1,
            installation=self.installation,
            name="lab",
            template=Template(),
            expires_at=datetime.now(UTC) + timedelta(minutes=10),
            limits=Limits(memory_mb=256, processes=64, disk_mb=64),
        )
        spec = replace(spec, **fields)
        self.made.append(spec)
        return spec

    def sandbox(self, **fields: Any) -> Observed:
        return self.provider.ensure(self.spec(**fields))

    def run(
        self,
        ref: Ref,
        code: str,
        language: str = "bash",
        timeout: int = 20,
        on_output: OutputSink | None = None,
        **fields: Any,
    ) -> ExecutionResult:
        request = RunRequest(f"ex_{uuid.uuid4().hex}", timeout, language, code.encode(), **fields)
        return self.provider.run(ref, request, on_output)

    def container(self, seen: Observed) -> Any:
        """The engine's own record."""
        return self.engine.inspect_container(seen.ref.data["container"])

    def clean(self) -> None:
        for spec in self.made:
            self.provider.discard(spec.sandbox_id, spec.installation)
        for entry in self.engine.containers(all=True, filters={"label": f"nexus.installation={self.installation}"}):
            self.engine.remove_container(entry["Id"], force=True, v=True)


@pytest.fixture
def client(docker_engine: Engine) -> Iterator[Any]:
    client = docker.APIClient(base_url=docker_engine.host, version="auto")
    yield client
    client.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the agents' sockets are; nothing may be left there."""
    folder = tmp_path / "agents"
    yield folder
    assert not folder.exists() or not list(folder.iterdir()), "agents' folders were left behind"


@pytest.fixture
def lab(docker_engine: Engine, docker_image: str, client: Any, folder: Path) -> Iterator[Lab]:
    lab = Lab(DockerProvider(docker_engine.host, image=docker_image, folder=folder), client)
    yield lab
    lab.clean()
    lab.provider.close()


@pytest.fixture
def bare_lab(docker_engine: Engine, bare_image: str, client: Any, folder: Path) -> Iterator[Lab]:
    lab = Lab(DockerProvider(docker_engine.host, image=bare_image, folder=folder), client)
    yield lab
    lab.clean()
    lab.provider.close()


@pytest.fixture
def remote_lab(remote_engine: Doorway, docker_image: str, client: Any, folder: Path) -> Iterator[Lab]:
    lab = Lab(DockerProvider(remote_engine.host, image=docker_image, folder=folder), client)
    yield lab
    remote_engine.mend()
    lab.clean()
    lab.provider.close()
