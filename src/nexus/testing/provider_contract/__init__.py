"""The provider port's promises as a pytest class: subclass it, say how your provider is opened, and run it.

    class TestMyProvider(ProviderContract):
        @pytest.fixture
        def open_provider(self):
            return MyProvider

What a provider's `Capabilities` deny is tested for being refused. See `docs/guides/providers-write-your-own.md`. Tests
of one provider's own ways do not belong in here.
"""

import pytest

_PARTS = ("base", "files", "lifecycle", "pausing", "pooling", "running", "sessions", "stopping", "threads")
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from nexus.testing.provider_contract.base import ContractBase  # noqa: E402 - after assertions are made to speak
from nexus.testing.provider_contract.files import FileContract  # noqa: E402
from nexus.testing.provider_contract.lifecycle import LifecycleContract  # noqa: E402
from nexus.testing.provider_contract.pausing import PauseContract  # noqa: E402
from nexus.testing.provider_contract.pooling import WarmPoolContract  # noqa: E402
from nexus.testing.provider_contract.running import RunContract  # noqa: E402
from nexus.testing.provider_contract.sessions import SessionContract  # noqa: E402
from nexus.testing.provider_contract.stopping import StopContract  # noqa: E402
from nexus.testing.provider_contract.threads import ThreadContract  # noqa: E402

__all__ = ["ContractBase", "ProviderContract", "WarmPoolContract"]


class ProviderContract(
    LifecycleContract, RunContract, StopContract, PauseContract, FileContract, SessionContract, ThreadContract
):
    """Every promise of the port. See `ContractBase` for what a subclass may set."""
