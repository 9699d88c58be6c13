"""Verifying, and every question to the past: without a right to write, and without any provider."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli.console import PATIENCE, Console
from tests.integration.sqlite.processes import in_child, may_fork
from tests.support import postgres
from tests.support.postgres import OWNER, SUPERUSER, TestDatabase


def past(moment: int | None) -> list[list[str]]:
    return [
        ["audit", "verify"],
        ["audit", "dump"],
        ["audit", "why", "box"],
        ["audit", "log"],
        ["events", "list"],
        ["replay", "box"],
        ["replay", "box", "--as-of", f"{moment}"],
        ["sandbox", "status", "box", "--as-of", f"{moment}"],
        ["sandbox", "list", "--as-of", f"{moment}"],
        ["sandbox", "timeline"],
        ["projections", "verify"],
    ]


@pytest.fixture
def story(nexus: Console) -> str:
    sandbox_id = nexus.create("box")
    nexus.ok("sandbox", "run", "box", "-c", "out x")
    nexus.ok("sandbox", "stop", "box")
    nexus.ok("audit", "seal")
    return sandbox_id


def test_the_past_is_told_without_a_provider(nexus: Console, story: str) -> None:
    """Not one is loaded, so none can be asked."""
    questions, env = past(nexus.events()[2].position), nexus.environment(nexus.owner)
    script = (
        "import sys\n"
        "from nexus.cli import main\n"
        f"failed = [arguments for arguments in {questions!r} if main(arguments) != 0]\n"
        "providers = ('nexus.adapters.providers', 'scripted_provider')\n"
        "loaded = [name for name in sys.modules if name.startswith(providers)]\n"
        "loaded += {'docker', 'e2b', 'modal'} & set(sys.modules)\n"
        "sys.exit(f'{failed} {loaded}' if failed or loaded else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, cwd=nexus.folder, capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    # The same question finds one that is loaded.
    wanted = nexus.process("sandbox", "create", "other")
    assert wanted.status == 0
    loud = script.replace(repr(questions), repr([["sandbox", "run", "other", "-c", "out y"]]))
    done = subprocess.run(
        [sys.executable, "-c", loud], env=nexus.environment(), cwd=nexus.folder, capture_output=True, timeout=PATIENCE
    )
    assert b"scripted_provider" in done.stderr


def test_verifying_makes_nothing(nexus: Console) -> None:
    assert nexus.ok("audit", "verify", "--json").json["events"] == 0
    assert nexus.ok("audit", "dump").text.count("\n") == 2
    assert not nexus.data.exists()


def test_verifying_changes_nothing(nexus: Console, story: str) -> None:
    before = nexus.kept()
    assert story.encode() in before
    nexus.ok("audit", "verify")
    nexus.ok("audit", "dump")
    assert nexus.kept() == before


@may_fork
def test_an_auditor_may_only_read_the_file(nexus: Console, story: str, tmp_path: Path) -> None:
    """Neither the file nor its folder can be written; in a child, because root may do everything everywhere."""
    assert nexus.ok("audit", "verify", "--json").json["intact"]  # what a child that is nobody cannot import any more
    dumped = nexus.ok("audit", "dump").out
    for path in nexus.data.iterdir():
        path.chmod(0o444)
    nexus.data.chmod(0o555)
    for folder in (tmp_path, *tmp_path.parents[:-1]):
        if folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o011)

    def look() -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        assert not os.access(nexus.data, os.W_OK)
        verdict = nexus.ok("audit", "verify", "--json").json
        assert (verdict["intact"], verdict["unsealed"]) == (True, 0)
        assert verdict["seals"] > 5
        assert nexus.ok("audit", "dump").out == dumped
        assert nexus("sandbox", "create", "more").status == 1

    try:
        assert in_child(look) == 0
    finally:
        nexus.data.chmod(0o755)


@pytest.fixture
def elsewhere() -> Iterator[TestDatabase]:
    with postgres.database(prepared=True) as database:
        yield database


def test_an_auditors_role_may_only_select(nexus: Console, elsewhere: TestDatabase, tmp_path: Path) -> None:
    database = elsewhere
    nexus.env["NEXUS_DATABASE_URL"] = database.owner
    nexus.ok("migrate")
    nexus.create("box")
    nexus.ok("sandbox", "run", "box", "-c", "out x")
    nexus.ok("audit", "key", "make")
    kept = str(tmp_path / "kept.json")
    nexus.ok("audit", "checkpoint", "-o", kept)
    role = f"auditor_of_{database.name}"
    database.run(f"CREATE ROLE {role} LOGIN")
    try:
        auditor = {"NEXUS_DATABASE_URL": database.server.url(database.name, role)}
        for table in ("schema_migrations", "installation", "events", "seals"):
            refused = nexus("audit", "verify", env=auditor)
            assert refused.status == 1
            database.run(f"GRANT SELECT ON {table} TO {role}", user=OWNER)
        assert "permission denied for table seals" in refused.err
        assert "An auditor's role needs SELECT on schema_migrations" in refused.err
        verdict = nexus.ok("audit", "verify", "--checkpoint", kept, "--json", env=auditor).json
        assert (verdict["intact"], verdict["unsealed"]) == (True, 0)
        assert verdict["seals"] == verdict["events"] > 4
        (tmp_path / "dump").write_bytes(nexus.ok("audit", "dump", env=auditor).out)
        nexus.ok("audit", "verify", "--offline", str(tmp_path / "dump"), "--checkpoint", kept)
        assert nexus("audit", "seal", env=auditor).status == 1
        database.run("ALTER TABLE events DISABLE TRIGGER ALL", user=OWNER)
        database.run("UPDATE events SET actor = 'user:eve' WHERE topic = 'sandbox.started'", user=OWNER)
        touched = nexus("audit", "verify", "--json", env=auditor)
        assert touched.status == 7
        assert [finding["kind"] for finding in touched.json["findings"]] == ["edited"]
    finally:
        database.run(f"DROP OWNED BY {role}; DROP ROLE {role}", user=SUPERUSER)
