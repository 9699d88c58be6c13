"""The Python guide runs as it is written, on the local provider."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nexus import NexusFS
from tests.support.postgres import TestDatabase

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "python.md"


def test_every_block_runs(
    tmp_path: Path,
    database: TestDatabase | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NEXUS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("NEXUS_SANDBOX_PROVIDER", "local")
    if database is not None:
        monkeypatch.setenv("NEXUS_DATABASE_URL", database.application)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) == 8
    names: dict[str, Any] = {}
    try:
        for number, block in enumerate(blocks):
            exec(compile(block, f"{GUIDE.name} block {number}", "exec"), names)
    finally:
        with NexusFS(is_admin=True, auto_cleanup=False) as nx:
            for sandbox in nx.sandbox_list()["sandboxes"]:
                nx.sandbox_stop(sandbox["sandbox_id"])
    out = capsys.readouterr().out
    assert "was stopped at" in out
    assert "because agent:researcher from python@" in out
    assert "was refused to run 'typed': Cannot run a sandbox that is paused" in out
