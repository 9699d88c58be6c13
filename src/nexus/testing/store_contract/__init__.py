"""The event store port's promises as a pytest class: subclass it, say how your store is opened, and run it.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def reopen(self, tmp_path):
            return functools.partial(MyStore, tmp_path / "store")

Tests of one database's own ways do not belong in here.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{part}"
        for part in ("base", "streams", "reading", "snapshots", "tailing", "views", "filling", "swapping", "bodies")
    )
)

from nexus.testing.store_contract.base import StoreContractBase  # noqa: E402 - after assertions are made to speak
from nexus.testing.store_contract.bodies import BodyContract  # noqa: E402
from nexus.testing.store_contract.filling import FillContract  # noqa: E402
from nexus.testing.store_contract.reading import ReadingContract  # noqa: E402
from nexus.testing.store_contract.snapshots import SnapshotContract  # noqa: E402
from nexus.testing.store_contract.streams import StreamContract  # noqa: E402
from nexus.testing.store_contract.swapping import SwapContract  # noqa: E402
from nexus.testing.store_contract.tailing import TailContract  # noqa: E402
from nexus.testing.store_contract.views import ViewContract  # noqa: E402

__all__ = ["BodyContract", "StoreContract", "StoreContractBase"]


class StoreContract(
    StreamContract, ReadingContract, SnapshotContract, TailContract, ViewContract, FillContract, SwapContract
):
    """Every promise of the port. See `StoreContractBase` for what a subclass gives.

    A store that keeps bodies, too, adds `BodyContract`.
    """
