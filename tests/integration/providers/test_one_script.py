"""A switch of provider changes no agent code: one script, four providers, the same output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nexus import NexusFS
from nexus.domain.errors import ExecutionTimedOut
from tests.integration.providers.conftest import PROVIDERS


def agent(nx: NexusFS, provider: str) -> list[Any]:
    """What an agent does; nothing in it knows where it runs but the one word."""
    seen: list[Any] = []
    sandbox = nx.sandbox_create(f"agent-{provider}", ttl_minutes=5, provider=provider, env={"GREETING": "hello"})
    sandbox_id = sandbox["sandbox_id"]
    try:
        seen.append(sandbox["status"])
        for language, code in (
            ("python", "import os; print(os.environ['GREETING'], sum(range(5)))"),
            ("javascript", "console.log(JSON.stringify({result: 6 * 7}))"),
            ("bash", "echo out; echo err >&2; exit 3"),
            ("python", "open('kept.txt', 'w').write('kept')"),
            ("python", "print(1/0)"),
        ):
            result = nx.sandbox_run(sandbox_id, language, code)
            last = result["stderr"].strip().splitlines()[-1:]
            seen.append((language, result["exit_code"], result["stdout"], last, result["truncated"]))
        try:
            nx.sandbox_run(sandbox_id, "python", "print('so far', flush=True)\nwhile True: pass", timeout=2)
        except ExecutionTimedOut as error:
            seen.append((str(error), error.stdout))
        nx.sandbox_pause(sandbox_id)
        seen.append(nx.sandbox_status(sandbox_id)["status"])
        nx.sandbox_resume(sandbox_id)
        seen.append(nx.sandbox_run(sandbox_id, "bash", "cat kept.txt")["stdout"])
    finally:
        seen.append(nx.sandbox_stop(sandbox_id)["status"])
    return seen


@pytest.mark.xdist_group("four-providers")
def test_one_script_four_providers(installation: Path) -> None:
    with NexusFS(auto_cleanup=False) as nx:
        seen = {provider: agent(nx, provider) for provider in PROVIDERS}
    assert seen["local"][0] == "active"
    assert seen["local"][1][2] == "hello 10\n"
    assert seen["docker"] == seen["local"]
    assert seen["e2b"] == seen["local"]
    assert seen["modal"] == seen["local"]
