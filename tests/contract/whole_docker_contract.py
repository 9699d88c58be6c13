"""The whole contract suite in the two ways to Docker of which the tests play what differs: for `scripts/soak`."""

from __future__ import annotations

from nexus.testing.provider_contract import ProviderContract
from tests.contract.test_docker_provider import BareContract, RemoteContract
from tests.support.dockerd_fixtures import bare_image, docker_engine, docker_image, remote_engine

__all__ = ["bare_image", "docker_engine", "docker_image", "remote_engine"]


class TestThroughARemoteEngine(RemoteContract, ProviderContract):
    """With nothing of this machine's file system between engine and agent."""


class TestWithoutPython(BareContract, ProviderContract):
    """With `docker exec` in the place of the agent."""
