"""A loopback Modal per worker process, and providers that do not wait long."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nexus.adapters.providers.modal import ModalProvider
from nexus.domain.provider import Observed, RunRequest, SandboxSpec, Template
from tests.support.cloud.modal import ModalCloud


@pytest.fixture(scope="session")
def _cloud() -> Iterator[ModalCloud]:
    with ModalCloud() as cloud:
        yield cloud


@pytest.fixture
def cloud(_cloud: ModalCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModalCloud]:
    """A Modal in good health, with nothing in it before and after each test."""
    for name, value in _cloud.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MODAL_MAX_THROTTLE_WAIT", "10")
    yield _cloud
    _cloud.plan.clear()
    _cloud.plan.hits.clear()
    _cloud.start()
    _cloud.clear()


@pytest.fixture
def open_provider(cloud: ModalCloud) -> Iterator[Callable[..., ModalProvider]]:
    """Opens providers with short deadlines; closes them afterwards."""
    opened: list[ModalProvider] = []

    def open_one(**options: Any) -> ModalProvider:
        short = {"request_timeout": 1.0, "create_timeout": 2.0, "build_timeout": 3.0, "snapshot_timeout": 1}
        provider = ModalProvider(**(short | options))
        opened.append(provider)
        return provider

    yield open_one
    cloud.plan.clear()
    for provider in opened:
        provider.close()


@pytest.fixture
def provider(open_provider: Callable[..., ModalProvider]) -> ModalProvider:
    return open_provider()


@pytest.fixture
def patient(open_provider: Callable[..., ModalProvider]) -> ModalProvider:
    """One with the usual deadlines, for tests whose subject is not the deadline."""
    return open_provider(request_timeout=20.0, create_timeout=60.0, build_timeout=60.0, snapshot_timeout=60)


@pytest.fixture
def sandbox(patient: ModalProvider) -> Observed:
    return patient.ensure(new_spec())


def new_spec(**fields: Any) -> SandboxSpec:
    spec = SandboxSpec(
        sandbox_id=f"sb_{uuid.uuid4().hex}",
        generation=1,
        installation="tests",
        name="test",
        template=Template(),
        expires_at=datetime.now(UTC) + timedelta(minutes=10),
    )
    return replace(spec, **fields)


def bash(code: str, **fields: Any) -> RunRequest:
    values: dict[str, Any] = {"execution_id": f"ex_{uuid.uuid4().hex}", "timeout": 30, "language": "bash", **fields}
    return RunRequest(code=code.encode(), **values)
