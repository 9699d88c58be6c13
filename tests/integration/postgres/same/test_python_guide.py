"""The Python guide, over Postgres: the key of kept bodies is shared by machines, so somebody made it."""

import base64
import os

import pytest

from tests.integration.test_python_guide import *  # noqa: F403


@pytest.fixture(autouse=True)
def capture_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_CAPTURE_KEY", base64.b64encode(os.urandom(32)).decode())
