"""Canaries in code, output, variables, standard input and keys: nothing that is kept or said has any of them.

Every table of the database, every file of the installation's folder, every export, what is printed and logged, and
the texts of errors are looked through. With capture on, the same holds: what is kept of them is ciphertext.
"""

from __future__ import annotations

import base64
import logging
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from nexus import LocalBackend, NexusFS
from nexus.domain.errors import ExecutionTimedOut, NexusError
from tests.integration.cli.console import Console
from tests.support import postgres
from tests.support.postgres import SUPERUSER, TestDatabase

pytestmark = pytest.mark.xdist_group("canaries")


class Canaries:
    """Words that are found nowhere else, one for each way in."""

    def __init__(self) -> None:
        self.key = base64.b64encode(os.urandom(32)).decode()
        self._word = f"canary{uuid.uuid4().hex}"

    def __getitem__(self, way: str) -> str:
        return f"{self._word}x{way}"

    def sung_in(self, data: bytes) -> bool:
        return self._word.encode() in data or self.key.encode() in data or base64.b64decode(self.key) in data


@pytest.fixture(scope="module")
def database() -> Iterator[TestDatabase]:
    with postgres.database(prepared=True) as database:
        yield database


@pytest.fixture(params=["sqlite", "postgres"])
def console(request: pytest.FixtureRequest, tmp_path: Path) -> Console:
    console = Console(tmp_path)
    if request.param == "postgres":
        console.env["NEXUS_DATABASE_URL"] = request.getfixturevalue("database").application
    return console


def tables(console: Console, database: TestDatabase | None) -> Iterator[tuple[str, bytes]]:
    """Every row of every table."""
    if database is None:
        with closing(sqlite3.connect(console.data / "nexus.db")) as connection:
            connection.text_factory = bytes
            names = [
                name.decode() for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            for name in names:
                for row in connection.execute(f"SELECT * FROM {name}"):
                    yield name, b"|".join(cell if isinstance(cell, bytes) else repr(cell).encode() for cell in row)
        return
    with psycopg.connect(database.server.url(database.name, SUPERUSER)) as link:
        for (name,) in link.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
            for row in link.execute(f"SELECT * FROM {name}").fetchall():
                yield name, b"|".join(cell if isinstance(cell, bytes) else repr(cell).encode() for cell in row)


EXPORTS = (
    "events list",
    "events list --json",
    "audit log",
    "audit log --json",
    "audit export --format jsonl",
    "audit export --format csv",
    "audit export --format cloudevents",
    "audit dump",
    "audit why box",
    "audit verify",
    "replay box",
    "replay box --json",
    "sandbox list --all --json",
    "sandbox status box --json",
    "sandbox logs box --json",
    "sandbox timeline box",
    "sandbox timeline box --html -",
    "usage --by sandbox --json",
    "projections verify",
    "config show",
    "config show --json",
    "doctor --json",
)


def work(console: Console, canaries: Canaries, box: str, *, local: bool, capture: bool) -> list[str]:
    """A sandbox's life through both doors, failures included; returns what was said but to its caller."""
    said = []
    env = {"HANDED_OVER": canaries["env"], "NEXUS_CAPTURE_KEY": canaries.key}
    options = ["--capture"] if capture else []
    console.ok(
        "sandbox", "create", box, "--env", "HANDED_OVER", "--env", f"GIVEN={canaries['given']}", *options, env=env
    )
    program = f"print('{canaries['code']}')\nimport sys\nprint('{canaries['err']}', file=sys.stderr)\n"
    if not local:
        program = f"out {canaries['code']}\nerr {canaries['err']}"
    run = console("sandbox", "run", box, "-c", program, "--env", f"ONCE={canaries['once']}", env=env)
    assert (run.status, canaries["code"] in run.text, canaries["err"] in run.err) == (0, True, True)
    console("sandbox", "exec", box, "-i", "--", "cat", canaries["argv"], stdin=canaries["stdin"].encode(), env=env)
    slow = f"import time\nprint('{canaries['slow']}', flush=True)\ntime.sleep(60)"
    late = console(
        "sandbox", "run", box, "--timeout", "1", "-c", slow if local else f"out {canaries['slow']}\nsleep 60", env=env
    )
    assert late.status == 124
    said.append(late.err)
    for command in (
        ["sandbox", "create", box, "--env", f"BAD NAME={canaries['badenv']}"],
        ["sandbox", "create", box, "--env", f"TOKEN={canaries['taken']}"],
        ["sandbox", "run", box, "-c", f"{canaries['nul']}\0"],
        ["sandbox", "run", "nobody", "-c", canaries["nobody"]],
        ["sandbox", "run", box, "-l", "cobol", "-c", canaries["cobol"]],
        ["audit", "body", "ex_" + "0" * 32],
    ):
        for form in ([], ["--json"]):
            refused = console(*command, *form, env=env)
            assert refused.status not in (0, 124)
            said.append(refused.text + refused.err)
    said += through_python(console, canaries, capture=capture, local=local, program=program, slow=slow)
    return said


def exports(console: Console, canaries: Canaries) -> Iterator[str]:
    env = {"NEXUS_CAPTURE_KEY": canaries.key, "NEXUS_ADMIN": "1", **_owner(console)}
    for export in EXPORTS:
        result = console(*export.split(), env=env)
        yield result.text + result.err


def _owner(console: Console) -> dict[str, str]:
    """Verifying read models makes tables, which on Postgres their owner alone may do."""
    url = console.env.get("NEXUS_DATABASE_URL", "")
    return {"NEXUS_DATABASE_URL": url.replace(postgres.APPLICATION, postgres.OWNER)} if url else {}


def through_python(
    console: Console, canaries: Canaries, *, capture: bool, local: bool, program: str, slow: str
) -> list[str]:
    said = []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in console.env.items():
            patch.setenv(name, value)
        patch.setenv("NEXUS_CAPTURE_KEY", canaries.key)
        if not local:
            patch.setattr("nexus.facade.wiring.open_engine", _with_provider(console))
        with NexusFS(backend=LocalBackend(), auto_cleanup=False) as nx:
            box = nx.sandbox_create(f"py-{capture}", env={"TOKEN": canaries["pyenv"]}, capture=capture)["sandbox_id"]
            assert canaries["code"] in nx.sandbox_run(box, "python", program, env={"RUN": canaries["pyrun"]})["stdout"]
            late = f"out {canaries['slow']}\nsleep 60"
            for code, options in ((slow if local else late, {"timeout": 1}), (canaries["nul"] + "\0", {})):
                with pytest.raises(NexusError) as caught:
                    nx.sandbox_run(box, "python", code, **options)  # type: ignore[arg-type]
                said.append(str(caught.value) + caught.value.hint)
                if not isinstance(caught.value, ExecutionTimedOut):  # this one carries the output, for its caller
                    said.append(repr(caught.value.details))
            if local:
                nx.sandbox_stop(box)
    return said


def _with_provider(console: Console):  # type: ignore[no-untyped-def]
    from nexus.engine import wiring

    right = wiring.open_engine
    return lambda settings, **more: right(settings, given=[console.provider], **more)


def files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path, path.read_bytes()


@pytest.mark.parametrize("provider", ["fake", "local"])
def test_no_canary_is_kept_or_said(
    console: Console, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, provider: str
) -> None:
    canaries, local = Canaries(), provider == "local"
    on_postgres = "NEXUS_DATABASE_URL" in console.env
    database: TestDatabase | None = request.getfixturevalue("database") if on_postgres else None
    console.env["NEXUS_TENANT"] = f"tenant-{uuid.uuid4().hex[:8]}"
    if local:
        console.env["NEXUS_SANDBOX_PROVIDER"] = "local"

    def kept() -> int:
        """Bodies of this test's tenant, after a look through everything; the tests here share a database."""
        for name, row in tables(console, database):
            assert not canaries.sung_in(row), name
        for path, content in files(console.data):
            assert not canaries.sung_in(content), path
        tenant = console.env["NEXUS_TENANT"].encode()
        return sum(tenant in row for name, row in tables(console, database) if name == "bodies")

    try:
        with caplog.at_level(logging.DEBUG):
            said = work(console, canaries, "plain", local=local, capture=False)
            assert kept() == 0
            said += work(console, canaries, "box", local=local, capture=True)
            assert kept() > 0
            said += exports(console, canaries)
        assert not canaries.sung_in("\n".join([*said, caplog.text]).encode())
    finally:
        console.ok("sandbox", "stop", "--all")
    assert kept() > 0
    (first, *_) = console.ok("sandbox", "logs", "box", "-q").text.split()
    told = console.ok("audit", "body", first, env={"NEXUS_CAPTURE_KEY": canaries.key}).text
    assert canaries["code"] in told, "its owner reads it all the same"
