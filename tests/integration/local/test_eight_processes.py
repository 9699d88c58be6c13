"""Eight processes create, run and stop at once in one installation: nothing is lost or locked, and views are true."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nexus import NexusFS
from nexus.projections.catalog import ALL
from nexus.projections.verify import verify
from tests.support.postgres import TestDatabase

PROCESSES, RUNS = 8, 3
WORK = """
import sys
from nexus import NexusFS
folder, number = sys.argv[1:]
with NexusFS(data_dir=folder, sandbox_provider="local", user_id="ann", auto_cleanup=False) as nx:
    sandbox = nx.sandbox_create(f"box-{number}", network="none")
    for turn in range(3):
        result = nx.sandbox_run(sandbox["sandbox_id"], "bash", f"echo {number} {turn}")
        assert (result["stdout"], result["exit_code"]) == (f"{number} {turn}\\n", 0), result
    nx.sandbox_stop(sandbox["sandbox_id"])
"""


def test_eight_at_once(tmp_path: Path, database: TestDatabase | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if database is not None:
        monkeypatch.setenv("NEXUS_DATABASE_URL", database.application)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, str(tmp_path), str(number)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for number in range(PROCESSES)
    ]
    try:
        for worker in workers:
            said, complained = worker.communicate(timeout=120)
            assert (worker.returncode, said, complained) == (0, b"", b"")
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.communicate()
    url = None if database is None else database.owner  # verifying makes tables
    with NexusFS(data_dir=str(tmp_path), database_url=url, sandbox_provider="local", auto_cleanup=False) as nx:
        store = nx.engine.store
        topics = [envelope.topic for envelope in store.read(0, 10_000)]
        for topic, count in (
            ("sandbox.requested", PROCESSES),
            ("sandbox.stopped", PROCESSES),
            ("execution.started", PROCESSES * RUNS),
            ("execution.finished", PROCESSES * RUNS),
        ):
            assert topics.count(topic) == count
        for projection in ALL:
            assert verify(store, projection).difference is None
        assert list(nx.engine.providers.get("local").owned(store.installation)) == []
