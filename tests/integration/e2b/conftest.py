"""A loopback E2B for each module, well again for each test, and adapters on it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nexus.adapters.providers.e2b import E2BProvider
from nexus.domain.provider import RunRequest, SandboxSpec, Template
from tests.support.cloud.e2b import E2BCloud
from tests.support.cloud.e2b_control import API_KEY

MakeSpec = Callable[..., SandboxSpec]
MakeRequest = Callable[..., RunRequest]


@pytest.fixture(scope="module")
def module_cloud() -> Iterator[E2BCloud]:
    with E2BCloud() as cloud:
        yield cloud


def stop(cloud: E2BCloud) -> None:
    """Stop the server, and wait until no connection of this process to it is left in a pool."""
    cloud.stop()
    remote = f"0100007F:{cloud.port:04X}"
    pause = threading.Event()
    for _ in range(1000):
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        if not any(line[2] == remote and line[9] != "0" for line in lines):
            return
        pause.wait(0.01)
    raise TimeoutError("connections to a stopped server stay open")


@pytest.fixture
def cloud(module_cloud: E2BCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[E2BCloud]:
    for name, value in module_cloud.environment().items():
        monkeypatch.setenv(name, value)
    module_cloud.requests.clear()
    module_cloud.users.clear()
    yield module_cloud
    module_cloud.restore()
    assert module_cloud.errors == []


@pytest.fixture
def provider(cloud: E2BCloud) -> Iterator[E2BProvider]:
    """Impatient with broken streams, so that what is to fail fails soon."""
    provider = E2BProvider(API_KEY, patience=0.5)
    yield provider
    provider.close()


@pytest.fixture
def make_spec() -> MakeSpec:
    def make(*, ttl: float = 600, **fields: Any) -> SandboxSpec:
        spec = SandboxSpec(
            sandbox_id=f"sb_{uuid.uuid4().hex}",
            generation=1,
            installation="here",
            name="test",
            template=Template(),
            expires_at=datetime.now(UTC) + timedelta(seconds=ttl),
        )
        return replace(spec, **fields)

    return make


@pytest.fixture
def spec(make_spec: MakeSpec) -> SandboxSpec:
    return make_spec()


@pytest.fixture
def make_request() -> MakeRequest:
    def make(code: str = "echo fine", language: str = "bash", **fields: Any) -> RunRequest:
        values: dict[str, Any] = {"execution_id": f"ex_{uuid.uuid4().hex}", "timeout": 20, **fields}
        return RunRequest(code=code.encode(), language=language, **values)

    return make
