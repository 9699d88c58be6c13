"""The contract suite over the E2B adapter and the unmodified SDK, against the loopback E2B."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from nexus.adapters.providers.e2b import E2BProvider
from nexus.domain.provider import Provider, Ref
from nexus.testing.provider_contract import ProviderContract
from nexus.testing.provider_contract.base import OpenProvider
from tests.support.cloud.e2b import E2BCloud
from tests.support.cloud.e2b_control import API_KEY


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
