"""The contract suite over the fake provider, once for each way that providers differ in."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from nexus.domain.provider import Capabilities, Provider, Ref
from nexus.testing import FakeCloud, FakePoolProvider, FakeProvider
from nexus.testing.provider_contract import ProviderContract, WarmPoolContract
from nexus.testing.provider_contract.base import OpenProvider
from tests.contract.interpreters import interpret


class FakeContract(ProviderContract):
    capabilities = Capabilities(pause="memory", native_ttl=True)

    @pytest.fixture
    def cloud(self, tmp_path: Path) -> FakeCloud:
        # Beside, not in, the folder in which the suite puts the host's secrets.
        return FakeCloud(tmp_path.parent / f"{tmp_path.name}-cloud")

    @pytest.fixture
    def open_provider(self, cloud: FakeCloud) -> OpenProvider:
        self.cloud_in_use = cloud
        return lambda: FakeProvider(cloud, capabilities=self.capabilities, behaviour=interpret, refuse_repeats=True)

    def deadline(self, provider: Provider, ref: Ref) -> datetime | None:
        resource = self.cloud_in_use.get(ref.data["id"])
        return resource.expires_at if resource else None


class TestLikeE2B(FakeContract):
    """Pauses with memory, keeps its ref, ends sandboxes by itself."""


class TestLikeModal(FakeContract):
    """Pauses to a snapshot: a new ref, and paused ones are in no list."""

    capabilities = Capabilities(pause="filesystem", ref_survives_pause=False, lists_paused=False)


class TestWithLittle(FakeContract):
    """Cannot pause, and speaks two languages."""

    capabilities = Capabilities(languages=("python", "bash"), pause="none")


class TestWarmPool(WarmPoolContract):
    @pytest.fixture
    def open_provider(self, tmp_path: Path) -> OpenProvider:
        cloud = FakeCloud(tmp_path.parent / f"{tmp_path.name}-cloud")
        return lambda: FakePoolProvider(cloud, behaviour=interpret)
