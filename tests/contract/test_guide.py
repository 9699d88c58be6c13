"""The guide for providers of one's own does what it says: its snippets are taken from it and used as told there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nexus.domain.errors import ConfigurationError
from nexus.engine.registry import Providers

GUIDE = Path(__file__).parents[2] / "docs/guides/providers-write-your-own.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guide's package, installed."""
    for block in blocks("python"):
        if named := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / named[1]).write_text(block)
    [toml] = blocks("toml")
    entry = re.search(r"^shed = \"(.*)\"$", toml, re.MULTILINE)
    assert entry is not None
    info = tmp_path / "shed-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[nexus.providers]\nshed = {entry[1]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("package")
def test_the_entry_point_is_found_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    providers = Providers(SimpleNamespace())
    assert "shed" in providers.names()
    monkeypatch.delenv("SHED_ADDRESS", raising=False)
    with pytest.raises(ConfigurationError, match="Shed address required"):
        providers.get("shed")
    monkeypatch.setenv("SHED_ADDRESS", "garden")
    provider = providers.get("shed")
    assert (provider.name, provider.capabilities.pause) == ("shed", "filesystem")
    monkeypatch.delitem(sys.modules, "shed")


def test_the_suite_runs_from_outside_the_project(package: Path) -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_shed.py"),
            *("-k", "ensure or owned or destroy or gone or streams_and_exit_code"),
        ],
        cwd=package,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(package), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = re.findall(r"^FAILED \S+::(\w+)", run.stdout, re.MULTILINE)
    assert "passed" in run.stdout, run.stdout + run.stderr
    assert "test_streams_and_exit_code" in failed, "the fake executes nothing"
    assert not [name for name in failed if "ensure" in name or "owned" in name], run.stdout


def test_the_fake_is_used_as_shown() -> None:
    [snippet] = [block for block in blocks("python") if block.startswith("from nexus.testing")]
    exec(compile(snippet, str(GUIDE), "exec"), {})
