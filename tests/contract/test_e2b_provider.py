"""The contract suite over the E2B adapter and the unmodified SDK, against the loopback E2B."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from nexus.adapters.providers.e2b import E2BProvider
from nexus.domain.provider import Provider, Ref
from nexus.testing.provider_contract import ProviderContract
from nexus.testing.provider_contract.base import OpenProvider
from nexus.testing.provider_contract.pausing import PauseContract
from nexus.testing.provider_contract.running import RunContract
from nexus.testing.provider_contract.stopping import StopContract
from nexus.testing.provider_contract.threads import ThreadContract
from tests.support.cloud.e2b import E2BCloud
from tests.support.cloud.e2b_control import API_KEY
from tests.support.cloud.e2b_warm import WarmProvider


@pytest.fixture(scope="module")
def e2b_cloud() -> Iterator[E2BCloud]:
    with E2BCloud() as cloud:
        yield cloud
        assert cloud.errors == []


class TestE2B(ProviderContract):
    @pytest.fixture
    def open_provider(self, e2b_cloud: E2BCloud, monkeypatch: pytest.MonkeyPatch) -> OpenProvider:
        self.cloud = e2b_cloud
        for name, value in e2b_cloud.environment().items():
            monkeypatch.setenv(name, value)
        return lambda: E2BProvider(API_KEY)

    def deadline(self, provider: Provider, ref: Ref) -> datetime | None:
        return self.cloud.world.sandboxes[ref.data["id"]].end_at


class TestWarmE2B(RunContract, StopContract, PauseContract, ThreadContract):
    """What concerns runs once more, where the fork server keeps them and not a perl of their own."""

    @pytest.fixture
    def open_provider(self, e2b_cloud: E2BCloud, monkeypatch: pytest.MonkeyPatch) -> OpenProvider:
        for name, value in e2b_cloud.environment().items():
            monkeypatch.setenv(name, value)

        def opened() -> Provider:
            provider = WarmProvider(API_KEY)
            provider.cloud = e2b_cloud
            return provider

        return opened
