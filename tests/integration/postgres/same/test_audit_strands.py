"""Several processes, each with a connection of its own, verify one snapshot of a Postgres database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from nexus.domain.ports import Reading
from nexus.engine.audit.checkpoints import SigningKey
from tests.integration.postgres.same.test_audit_tampering import key, tampering  # noqa: F401
from tests.support.postgres import SUPERUSER, TestDatabase
from tests.support.world import World
from tests.unit.audit.tampering import Session, sealed_story
from tests.unit.audit.test_strands import *  # noqa: F403
from tests.unit.audit.test_strands import verified


def test_without_the_right_to_share_a_snapshot_one_does_it_all(
    world: World,
    key: SigningKey,  # noqa: F811
    prepared: TestDatabase,
    open_reading: Callable[[], Reading],
    started: list[object],
) -> None:
    sealed_story(world, key)
    prepared.run("REVOKE EXECUTE ON FUNCTION pg_export_snapshot() FROM PUBLIC", user=SUPERUSER)
    assert verified(open_reading).intact
    assert started == []


FORKS = """
import sys
from pathlib import Path
from nexus.adapters.stores.sqlite.database import Database
from nexus.adapters.stores.postgres import PostgresReading
from nexus.engine.audit import evidence, strands
from nexus.engine.audit.verifier import verify

strands._WORTH = evidence._LEAST = 1
strands.os.sched_getaffinity = lambda _: {0, 1, 2}
strands.numbers, strands.check, strands._spawned = lambda _: (), None, None
reading = PostgresReading(sys.argv[1])
verdict = verify(evidence.LogEvidence(reading))
with Database(Path(sys.argv[2]) / "a.db").reading():
    assert not strands._can_fork()
assert strands._can_fork()
print(verdict.intact, verdict.seals == verdict.events > 10, {finding.kind for finding in verdict.findings})
reading.close()
"""


def test_a_process_of_one_thread_forks(
    world: World,
    key: SigningKey,  # noqa: F811
    prepared: TestDatabase,
    tampering: Session,  # noqa: F811
    tmp_path: Path,
) -> None:
    """And its forks do all there is to do."""

    def said() -> tuple[str, str]:
        command = [sys.executable, "-W", "error", "-c", FORKS, prepared.owner, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout, done.stderr

    sealed_story(world, key)
    assert said() == ("True True set()\n", "")
    tampering.run("UPDATE events SET actor = 'user:eve'")
    assert said() == ("False True {'edited'}\n", "")
