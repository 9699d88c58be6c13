"""The command line as tests call it: inside this process, or as a process of its own, perhaps on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from click.testing import CliRunner

from nexus.adapters.stores.postgres import PostgresStore
from nexus.adapters.stores.sqlite import SQLiteStore
from nexus.cli import main
from nexus.domain.events import Envelope
from nexus.domain.ports import EventStore
from nexus.testing import FakeProvider
from tests.integration.cli import scripted
from tests.support.postgres import TestDatabase, dump

ROOT = Path(__file__).parents[3]
PATIENCE = 30.0


@dataclass(frozen=True)
class Result:
    """How a call ended."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """The error object of JSON mode."""
        found: dict[str, str] = json.loads(self.err)["error"]
        assert set(found) == {"code", "message", "hint"}
        return found


class Console:
    """One installation in a folder of its own, used by `ann` unless `NEXUS_USER` says otherwise."""

    def __init__(self, folder: Path, database: TestDatabase | None = None) -> None:
        """`database` is a migrated one on Postgres; without it the store is embedded."""
        self.folder = folder
        self.database = database
        self.data = folder / "data"
        self.cloud = folder / "cloud"
        self.env = {
            "HOME": str(folder),
            "NEXUS_DATA_DIR": str(self.data),
            "NEXUS_SANDBOX_PROVIDER": "scripted",
            "NEXUS_USER": "ann",
            "PATH": os.environ["PATH"],
        }
        self.operator: dict[str, str] = {}
        """What makes `ann` an operator. On the embedded store she is one already."""
        self.owner: dict[str, str] = {}
        """What makes her an operator who may rebuild tables, too."""
        if database is not None:
            self.env["NEXUS_DATABASE_URL"] = database.application
            self.operator = {"NEXUS_ADMIN": "1"}
            self.owner = {**self.operator, "NEXUS_DATABASE_URL": database.owner}
        self.provider: FakeProvider = scripted.provider(self.cloud)
        self._looks: dict[str, PostgresStore] = {}
        self._site = folder / "site"
        scripted.install(self._site, self.cloud)

    # --- in this process -----------------------------------------------------------------------------------------
    def __call__(self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str | None] | None = None) -> Result:
        """Run one command line. A traceback, or anything but ASCII and line ends on stderr, fails the test."""
        given: dict[str, str | None] = {
            name: None for name in os.environ if name.startswith(("NEXUS_", "E2B_", "MODAL_"))
        }
        with CliRunner().isolation(input=stdin, env={**given, **self.env, **(env or {})}) as streams:
            status = main(arguments, given=[self.provider])
            out, err = streams[0].getvalue(), streams[1].getvalue().decode()
        assert "Traceback" not in err, err
        assert b"Traceback" not in out
        assert isinstance(status, int)
        return Result(status, out, err)

    def ok(self, *arguments: str, **more: Any) -> Result:
        """Run one command line that succeeds."""
        result = self(*arguments, **more)
        assert result.status == 0, result.err
        return result

    def create(self, name: str = "box", *options: str) -> str:
        """A new sandbox's id."""
        sandbox_id: str = self.ok("sandbox", "create", name, "--json", *options).json["sandbox_id"]
        return sandbox_id

    # --- as a process --------------------------------------------------------------------------------------------
    def environment(self, env: Mapping[str, str | None] | None = None) -> dict[str, str]:
        path = os.pathsep.join([str(self._site), str(ROOT), str(ROOT / "src")])
        merged = {**self.env, "PYTHONPATH": path, **(env or {})}
        return {name: value for name, value in merged.items() if value is not None}

    def start(
        self, *arguments: str, env: Mapping[str, str | None] | None = None, **more: Any
    ) -> subprocess.Popen[bytes]:
        """A process that the caller waits for."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        command = [sys.executable, "-m", "nexus.cli", *arguments]
        return subprocess.Popen(command, env=self.environment(env), cwd=self.folder, **streams)

    def process(
        self, *arguments: str, stdin: bytes | None = None, env: Mapping[str, str | None] | None = None, **more: Any
    ) -> Result:
        """Run one command line in a process of its own."""
        process = self.start(
            *arguments, env=env, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE, **more
        )
        try:
            out, err = process.communicate(stdin, timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()
        assert b"Traceback" not in (err or b""), err
        return Result(process.returncode, out or b"", (err or b"").decode())

    def on_terminal(
        self, *arguments: str, env: Mapping[str, str | None] | None = None, columns: int = 120
    ) -> tuple[int, bytes]:
        """Run one command line on a terminal; returns its status and everything that reached the terminal."""
        master, slave = pty.openpty()
        try:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
            more = {"TERM": "xterm-256color", **(env or {})}
            process = self.start(*arguments, env=more, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
            os.close(slave)
            slave = -1
            try:
                seen = _drain(master)
                return process.wait(PATIENCE), seen
            finally:
                process.kill()
                process.wait()
        finally:
            os.close(master)
            if slave >= 0:
                os.close(slave)

    # --- what is recorded ----------------------------------------------------------------------------------------
    def head(self) -> int:
        """The log's last position; 0 where no store was made yet."""
        if not self._url and not (self.data / "nexus.db").exists():
            return 0
        with self._store() as store:
            return store.head()

    def events(self, after: int = 0) -> list[Envelope]:
        with self._store() as store:
            return store.read(after, 100_000)

    @property
    def _url(self) -> str:
        return self.env.get("NEXUS_DATABASE_URL", "")

    @contextmanager
    def _store(self) -> Iterator[EventStore]:
        """The store as another process sees it. A look at a server keeps its connection for the next look."""
        if not self._url:
            with closing(SQLiteStore(self.data / "nexus.db")) as store:
                yield store
            return
        if self._url not in self._looks:
            self._looks[self._url] = PostgresStore(self._url)
        yield self._looks[self._url]

    def close(self) -> None:
        """Let go of what was opened to look at."""
        while self._looks:
            self._looks.popitem()[1].close()

    def story(self) -> list[str]:
        """Names of all events about sandboxes, in order."""
        return [type(e.event).__name__ for e in self.events() if e.originator_id.startswith("sandbox-")]

    def kept(self) -> bytes:
        """Everything that this installation keeps: its files, and the database's tables as text."""
        files = (path for path in sorted(self.data.rglob("*")) if path.is_file() and path.suffix != ".db-shm")
        tables = "" if self.database is None else dump(self.database)
        return b"".join(path.read_bytes() for path in files) + tables.encode()

    def write(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """A statement by somebody who may write the tables themselves; `?` stands for a parameter."""
        if self.database is not None:
            return self.database.run(statement.replace("?", "%s"), parameters)
        with closing(sqlite3.connect(self.data / "nexus.db")) as connection, connection:
            return connection.execute(statement, parameters).fetchall()

    def unprotect(self) -> None:
        """From now on `write` may change events: what forbids it is gone."""
        if self.database is not None:
            self.write("ALTER TABLE events DISABLE TRIGGER USER")
            return
        for (name,) in self.write("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            self.write(f'DROP TRIGGER "{name}"')


def _drain(descriptor: int) -> bytes:
    """Everything until the other side is closed by all who had it."""
    seen, deadline = bytearray(), time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if select.select([descriptor], [], [], 0.1)[0]:
            try:
                data = os.read(descriptor, 65536)
            except OSError:  # how Linux says that nobody is left
                return bytes(seen)
            if not data:
                return bytes(seen)
            seen += data
    raise TimeoutError(f"the terminal was not let go; so far: {bytes(seen)!r}")


def reading(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines of a process's output; raises `TimeoutError` when none comes for long."""
    descriptor, held = stream.fileno(), b""
    while True:
        while b"\n" not in held:
            if not select.select([descriptor], [], [], PATIENCE)[0]:
                raise TimeoutError(f"no line came; so far: {held!r}")
            data = os.read(descriptor, 65536)
            if not data:
                return
            held += data
        line, _, held = held.partition(b"\n")
        yield line
