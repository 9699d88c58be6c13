"""Which providers there are, third parties' too."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexus import config
from nexus.domain.errors import ConfigurationError
from nexus.domain.provider import Capabilities
from nexus.engine.registry import BUILT_IN, Providers
from nexus.testing import FakeProvider


@pytest.fixture
def announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that announces one provider that works and two that cannot be loaded."""
    info = tmp_path / "other-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[nexus.providers]\nworking = other_provider:make\ngone = other_provider:gone\nmissing = not_there:make\n"
    )
    (tmp_path / "other_provider.py").write_text(
        "from nexus.testing import FakeProvider\n\ndef make(settings):\n    return FakeProvider(name='working')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def providers(tmp_path: Path) -> Providers:
    return Providers(config.load(env={}, file=None, data_dir=tmp_path), given=[FakeProvider()])


def test_a_third_partys_provider_is_found_by_its_entry_point(announced: None, tmp_path: Path) -> None:
    registry = providers(tmp_path)
    assert registry.names() == ["local", "docker", "e2b", "modal", "fake", "gone", "missing", "working"]
    assert registry.get("working").name == "working"
    assert registry.get("working") is registry.get("working")


@pytest.mark.parametrize(("name", "why"), [("gone", "AttributeError"), ("missing", "ModuleNotFoundError")])
def test_one_that_cannot_be_loaded_is_a_clear_error_and_no_obstacle(
    announced: None, tmp_path: Path, name: str, why: str
) -> None:
    registry = providers(tmp_path)
    with pytest.raises(ConfigurationError, match=f"Provider {name} cannot be loaded: {why}"):
        registry.get(name)
    assert {"fake", "working"} <= set(registry.able(lambda capabilities: True))


def test_an_unknown_one_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Unknown provider 'nowhere'") as caught:
        providers(tmp_path).get("nowhere")
    assert "local, docker, e2b, modal" in caught.value.hint


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - {"local"}))
def test_what_one_with_an_extra_or_a_key_can_do_is_known_without_it(tmp_path: Path, name: str) -> None:
    assert isinstance(providers(tmp_path).declared(name), Capabilities)
