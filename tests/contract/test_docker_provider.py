"""The contract suite over the Docker provider: by the agent's socket, through a remote engine, and without Python.

The second and third way differ from the first in how programs are run and files are moved, and play those parts of it;
`scripts/soak` plays the whole of it in each way (`whole_docker_contract.py`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from nexus.adapters.providers.docker import DockerProvider, agent
from nexus.domain.provider import Capabilities, Observed, Provider, Ref, SandboxSpec, Template
from nexus.testing.provider_contract import ProviderContract, WarmPoolContract
from nexus.testing.provider_contract.base import ContractBase, OpenProvider
from nexus.testing.provider_contract.files import FileContract
from nexus.testing.provider_contract.pausing import PauseContract
from nexus.testing.provider_contract.running import RunContract
from nexus.testing.provider_contract.sessions import SessionContract
from nexus.testing.provider_contract.stopping import StopContract
from tests.support.dockerd import Engine
from tests.support.dockerd_fixtures import Doorway, bare_image, docker_engine, docker_image, remote_engine

__all__ = ["bare_image", "docker_engine", "docker_image", "remote_engine"]


class DockerContract(ContractBase):
    overrun: ClassVar[float] = 1.0

    @pytest.fixture(autouse=True)
    def no_lingering(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The grace after a deadline is for whoever resumes a paused sandbox; here it would only be waited for."""
        monkeypatch.setattr(agent, "EXPIRY_GRACE", 0.2)

    def deadline(self, provider: Provider, ref: Ref) -> datetime | None:
        assert isinstance(provider, DockerProvider)
        left = provider.time_left(ref)
        return None if left is None else datetime.now(UTC) + timedelta(seconds=left)


class SharingContract(DockerContract):
    """Most tests take a sandbox as they find it: here they take turns with one, cleaned in between."""

    @pytest.fixture(scope="class")
    @classmethod
    def agents(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
        """Where agents' sockets are; not in the folder with the host's secrets."""
        folder = tmp_path_factory.mktemp("agents")
        yield folder
        assert not list(folder.iterdir()), "the suite left something behind"

    @pytest.fixture(scope="class")
    @classmethod
    def shared_spec(cls, docker_engine: Engine, agents: Path) -> Iterator[SandboxSpec]:
        spec = SandboxSpec(
            sandbox_id=f"sb_{uuid.uuid4().hex}",
            generation=1,
            installation=f"contract-{uuid.uuid4().hex[:12]}",
            name="shared",
            template=Template(),
            expires_at=datetime.now(UTC) + timedelta(minutes=30),  # less than what the tests extend to
        )
        yield spec
        last = DockerProvider(docker_engine.host, folder=agents)
        last.discard(spec.sandbox_id, spec.installation)
        last.close()

    @pytest.fixture
    def installation(self, shared_spec: SandboxSpec) -> str:
        return shared_spec.installation

    @pytest.fixture
    def sandbox(self, provider: Provider, shared_spec: SandboxSpec) -> Observed:
        seen = provider.ensure(shared_spec)
        if seen.condition == "paused":
            seen = provider.resume(shared_spec, seen.ref)
        assert self.execute(provider, seen.ref, "rm -rf ~/* ~/.[!.]* /tmp/*").exit_code == 0
        return seen

    @pytest.fixture(autouse=True)
    def alone(self, request: pytest.FixtureRequest, provider: Provider, shared_spec: SandboxSpec) -> None:
        """A test that makes sandboxes of its own counts them: the shared one must not be among them."""
        if "make_spec" in request.fixturenames and "sandbox" not in request.fixturenames:
            provider.discard(shared_spec.sandbox_id, shared_spec.installation)


class TestBySocket(SharingContract, ProviderContract):
    @pytest.fixture
    def open_provider(self, docker_engine: Engine, docker_image: str, agents: Path) -> OpenProvider:
        return lambda: DockerProvider(docker_engine.host, image=docker_image, folder=agents)


class RemoteContract(SharingContract):
    @pytest.fixture
    def open_provider(self, remote_engine: Doorway, docker_image: str, tmp_path: Path) -> OpenProvider:
        return lambda: DockerProvider(remote_engine.host, image=docker_image, folder=tmp_path / "never-made")


class TestThroughARemoteEngine(RemoteContract, RunContract, StopContract, FileContract, SessionContract):
    """What goes over the connection."""


class BareDocker(DockerProvider):
    """What an image without Python has."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, languages=("bash",), sessions=(), native_ttl=False)


class BareContract(SharingContract):
    @pytest.fixture
    def open_provider(self, docker_engine: Engine, bare_image: str, agents: Path) -> OpenProvider:
        return lambda: BareDocker(docker_engine.host, image=bare_image, folder=agents)


class TestWithoutPython(BareContract, RunContract, StopContract, FileContract, PauseContract):
    """What needs an agent elsewhere."""


class TestWarmPool(WarmPoolContract):
    @pytest.fixture
    def open_provider(self, docker_engine: Engine, docker_image: str, tmp_path: Path) -> Iterator[OpenProvider]:
        folder = tmp_path / "agents"
        yield lambda: DockerProvider(docker_engine.host, image=docker_image, folder=folder)
        assert not folder.exists() or not list(folder.iterdir()), "the suite left something behind"


class TestWarmPoolOfARemoteEngine(WarmPoolContract):
    @pytest.fixture
    def open_provider(self, remote_engine: Doorway, docker_image: str, tmp_path: Path) -> OpenProvider:
        return lambda: DockerProvider(remote_engine.host, image=docker_image, folder=tmp_path / "never-made")
