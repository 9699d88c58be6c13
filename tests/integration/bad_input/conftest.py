from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def shared_database_url() -> str:
    """Empty for the embedded store. `tests/integration/postgres/same` has another answer."""
    return ""
