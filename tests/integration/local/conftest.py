"""A local provider in a folder of its own, and sandboxes that end with the test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nexus.adapters.providers.local import LocalProvider
from nexus.domain.provider import ExecutionResult, Ref, RunRequest, SandboxSpec, Template

INSTALLATION = "tests"
MakeSpec = Callable[..., SandboxSpec]
Run = Callable[..., ExecutionResult]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def provider(state: Path) -> Iterator[LocalProvider]:
    yield LocalProvider(state)
    assert not state.exists() or not list(state.iterdir()), "a sandbox was left behind"


@pytest.fixture
def make_spec(provider: LocalProvider) -> Iterator[MakeSpec]:
    made: list[SandboxSpec] = []

    def make(**fields: Any) -> SandboxSpec:
        spec = SandboxSpec(
            sandbox_id=f"sb_{uuid.uuid4().hex}",
            generation=1,
            installation=INSTALLATION,
            name="tests",
            template=Template(),
            expires_at=datetime.now(UTC) + timedelta(minutes=10),
        )
        made.append(replace(spec, **fields))
        return made[-1]

    yield make
    for spec in made:
        provider.discard(spec.sandbox_id, spec.installation)


@pytest.fixture
def run(provider: LocalProvider) -> Run:
    def run(ref: Ref, code: str, language: str = "python", timeout: int = 20, **fields: Any) -> ExecutionResult:
        request = RunRequest(f"ex_{uuid.uuid4().hex}", timeout, language, code.encode(), **fields)
        return provider.run(ref, request)

    return run
