"""Every hostile program against the local provider, as whoever runs the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from nexus.adapters.providers.local import LocalProvider
from nexus.domain.provider import Provider
from nexus.testing.hostile.suite import HostileSuite


class TestLocal(HostileSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def open_provider(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Provider]]:
        state = tmp_path_factory.mktemp("state")
        yield lambda: LocalProvider(state)
        assert not list(state.iterdir()), "sandboxes were left behind"
