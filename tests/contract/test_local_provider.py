"""The contract suite over the local provider: real sandboxes, real processes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from nexus.adapters.providers.local import LocalProvider
from nexus.domain.provider import Provider, Ref
from nexus.testing.provider_contract import ProviderContract
from nexus.testing.provider_contract.base import OpenProvider


class TestLocal(ProviderContract):
    overrun: ClassVar[float] = 1.0

    @pytest.fixture
    def open_provider(self, tmp_path: Path) -> Iterator[OpenProvider]:
        state = tmp_path.parent / f"{tmp_path.name}-state"  # not in the folder with the host's secrets
        yield lambda: LocalProvider(state)
        assert not state.exists() or not list(state.iterdir()), "the suite left something behind"

    def deadline(self, provider: Provider, ref: Ref) -> datetime | None:
        assert isinstance(provider, LocalProvider)
        left = provider.time_left(ref)
        return None if left is None else datetime.now(UTC) + timedelta(seconds=left)
