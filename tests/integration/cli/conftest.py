from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli.console import Console
from tests.support.postgres import TestDatabase


@pytest.fixture
def nexus(tmp_path: Path, database: TestDatabase | None) -> Iterator[Console]:
    console = Console(tmp_path, database)
    yield console
    console.close()


@pytest.fixture
def imports_of_the_store() -> set[str]:
    """What a store that is not embedded may import in addition."""
    return set()
