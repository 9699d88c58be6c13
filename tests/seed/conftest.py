"""An installation of its own for each test, the real facade on the default provider, and a record of what ran."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nexus import LocalBackend, NexusFS
from tests.support.postgres import TestDatabase

Result = dict[str, Any]


@pytest.fixture
def installation(tmp_path: Path, database: TestDatabase | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty data folder, no settings from outside; at the end every sandbox is stopped and every facade closed."""
    for name in list(os.environ):
        if name.startswith(("NEXUS_", "E2B_", "MODAL_", "DOCKER_")):
            monkeypatch.delenv(name)
    data = tmp_path / "data"
    monkeypatch.setenv("NEXUS_DATA_DIR", str(data))
    monkeypatch.setenv("NEXUS_CONFIG", str(_empty_configuration(tmp_path)))
    if database is not None:
        monkeypatch.setenv("NEXUS_DATABASE_URL", database.application)
    facades: list[NexusFS] = []
    begin = NexusFS.__init__

    def remembered(self: NexusFS, *args: Any, **more: Any) -> None:
        begin(self, *args, **more)
        facades.append(self)

    monkeypatch.setattr(NexusFS, "__init__", remembered)
    try:
        yield data
    finally:
        for facade in facades:
            facade.close()
        with NexusFS(backend=LocalBackend(), is_admin=True, auto_cleanup=False) as sweeper:
            for sandbox in sweeper.sandbox_list()["sandboxes"]:
                sweeper.sandbox_stop(sandbox["sandbox_id"])


def _empty_configuration(folder: Path) -> Path:
    path = folder / "config.toml"
    path.write_text("")
    return path


@pytest.fixture
def nx(installation: Path) -> NexusFS:
    """The facade that the document's snippets assume."""
    return NexusFS(backend=LocalBackend(), is_admin=True)


@pytest.fixture
def sandbox_id(nx: NexusFS) -> str:
    """A sandbox that is there already."""
    return str(nx.sandbox_create("already-there")["sandbox_id"])


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Result]:
    """What every `sandbox_run` gave back, in order."""
    results: list[Result] = []
    run = NexusFS.sandbox_run

    def recorded(self: NexusFS, *args: Any, **more: Any) -> Result:
        result = run(self, *args, **more)
        results.append(result)
        return result

    monkeypatch.setattr(NexusFS, "sandbox_run", recorded)
    return results
