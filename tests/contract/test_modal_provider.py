"""The contract suite over the Modal provider, through the unmodified SDK, on a loopback Modal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nexus.adapters.providers.modal import ModalProvider
from nexus.testing.provider_contract import ProviderContract
from nexus.testing.provider_contract.base import OpenProvider
from tests.support.cloud.modal import ModalCloud


@pytest.fixture(scope="module")
def cloud() -> Iterator[ModalCloud]:
    with ModalCloud() as cloud, pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.environment().items():
            patch.setenv(name, value)
        yield cloud
        assert cloud.running() == [], "every test ends what it made"


class TestModal(ProviderContract):
    @pytest.fixture
    def open_provider(self, cloud: ModalCloud) -> OpenProvider:
        return ModalProvider
