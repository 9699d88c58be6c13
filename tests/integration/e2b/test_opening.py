"""What the provider needs to be opened, what it says when that is missing, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from nexus.adapters.providers import e2b as adapter
from nexus.adapters.providers.e2b import E2BProvider
from nexus.domain.errors import ConfigurationError
from nexus.domain.provider import SandboxSpec
from tests.integration.e2b.conftest import stop
from tests.support.cloud.common import Fault
from tests.support.cloud.e2b import E2BCloud


@pytest.mark.parametrize("given", [None, ""])
def test_without_a_key(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    monkeypatch.delenv("E2B_API_KEY", raising=False)
    with pytest.raises(ConfigurationError) as raised:
        E2BProvider(given)
    assert raised.value.message == "E2B API key required"
    assert "E2B_API_KEY" in raised.value.hint


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter.provider, "find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError) as raised:
        E2BProvider("e2b_key")
    assert "pip install 'nexus-sandbox[e2b]'" in raised.value.hint


def test_opening_imports_no_sdk() -> None:
    code = (
        "import sys; from nexus.adapters.providers.e2b import E2BProvider; p = E2BProvider('key'); p.capabilities;"
        "p.close(); sys.exit(any(m.split('.')[0] in {'e2b', 'httpx', 'connectrpc'} for m in sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_from_settings(cloud: E2BCloud, spec: SandboxSpec) -> None:
    settings = SimpleNamespace(e2b_api_key=cloud.environment()["E2B_API_KEY"], e2b_template_id="python-data")
    E2BProvider.from_settings(settings).ensure(spec)
    assert [sandbox.template for sandbox in cloud.sandboxes()] == ["python-data"]


def test_the_key_that_is_given_wins_over_the_environment(cloud: E2BCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    key = cloud.environment()["E2B_API_KEY"]
    monkeypatch.setenv("E2B_API_KEY", "e2b_another_accounts")
    assert E2BProvider(key).find("sb_1", "here") == []


def test_the_doctor_is_told(cloud: E2BCloud, provider: E2BProvider) -> None:
    assert [(finding.check, finding.ok) for finding in provider.diagnose()] == [("e2b", True)]
    cloud.plan.set(Fault.UNAUTHENTICATED, "list")
    [refused] = provider.diagnose()
    assert (refused.ok, "E2B_API_KEY" in refused.hint) == (False, True)
    cloud.plan.clear()
    stop(cloud)
    [unreachable] = provider.diagnose()
    assert (unreachable.ok, "network" in unreachable.hint) == (False, True)


def test_a_provider_that_was_closed_opens_again_by_itself(provider: E2BProvider, spec: SandboxSpec) -> None:
    seen = provider.ensure(spec)
    provider.close()
    assert provider.inspect(seen.ref).condition == "running"
