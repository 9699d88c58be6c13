from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli.console import Console


@pytest.fixture
def nexus(tmp_path: Path) -> Console:
    return Console(tmp_path)
