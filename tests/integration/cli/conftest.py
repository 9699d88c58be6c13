from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli.console import Console


@pytest.fixture
def database_url() -> str:
    """Empty for the embedded store. `tests/integration/postgres/same` has another answer."""
    return ""


@pytest.fixture
def nexus(tmp_path: Path, database_url: str) -> Console:
    return Console(tmp_path, database_url)
