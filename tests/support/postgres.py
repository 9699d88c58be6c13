"""Postgres servers of the tests' own, from Debian's packages: on a unix socket in a temporary folder, gone afterwards.

Each test process has one server, and each test a database in it. Processes do not share theirs: a reader of the log
waits for every older transaction of the whole server, so that tests at the same time would hold each other up.
"""

from __future__ import annotations

import atexit
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from nexus.adapters.stores.postgres import PostgresStore
from nexus.adapters.stores.postgres.address import Address
from nexus.adapters.stores.postgres.schema import migrate
from nexus.domain.ports import Table
from nexus.projections.projector import prepare
from nexus.projections.tables import TABLES

INSTALL_HINT = "apt-get install -y --no-install-recommends postgresql"
START_SECONDS = 60.0
_IN_USE = "pre-existing shared memory block"
SUPERUSER, OWNER, APPLICATION, SECURED = "postgres", "nexus_owner", "nexus_app", "nexus_secured"
PASSWORD = "c0rrect horse/battery@staple"
"""Of the role `SECURED`, the only one that needs one."""

_SETTINGS = {
    "listen_addresses": "",
    "max_connections": 200,
    "shared_buffers": "32MB",
    "fsync": "on",
    "max_wal_size": "128MB",
    "log_min_messages": "warning",
    "max_prepared_transactions": 4,
}
_HBA = f"local all {SECURED} scram-sha-256\nlocal all all trust\n"


class ServerFailed(RuntimeError):
    """The server cannot be started; the message says what is missing."""


@cache
def programs() -> Path:
    """The folder of Debian's newest server programs."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))],
    )
    if not found:
        raise ServerFailed(f"there is no Postgres server in /usr/lib/postgresql; install it with: {INSTALL_HINT}")
    return found[-1].parent


def _as_ordinary_user() -> list[str]:
    """Postgres refuses to run as root; a server must not outlive the process that started it."""
    command = ["setpriv", "--pdeathsig", "INT"]
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        command += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
    return [*command, "--"]


def _place(settings: Mapping[str, Any]) -> Path | None:
    """A server that writes nothing down for good lives in memory where there is room: making a database is files."""
    memory = Path("/dev/shm")
    if settings["fsync"] != "off" or not memory.is_dir():
        return None
    seen = os.statvfs(memory)
    return memory if seen.f_bavail * seen.f_frsize >= _ROOM else None


_ROOM = 2 * 1024**3


@dataclass(frozen=True)
class TestDatabase:
    """A database for one test, migrated, with a role that owns the tables and one that only uses them."""

    __test__ = False

    server: Server
    name: str

    @property
    def owner(self) -> str:
        """The URL for `nexus migrate`, rebuilds, and everything else."""
        return self.server.url(self.name, OWNER)

    @property
    def application(self) -> str:
        """The URL of an ordinary process."""
        return self.server.url(self.name, APPLICATION)

    def run(self, statement: str, parameters: Sequence[Any] = (), *, user: str = SUPERUSER) -> list[tuple[Any, ...]]:
        """One statement, committed; its rows, if it has any."""
        with psycopg.connect(self.server.url(self.name, user), autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []


class Server:
    """One server, under a folder of its own."""

    def __init__(self, within: Sequence[str] = (), **settings: Any) -> None:
        """`within` is a command that runs its arguments, the server's, in other surroundings."""
        self._settings = {**_SETTINGS, **settings}
        self.folder = Path(tempfile.mkdtemp(prefix="nexus-pg-", dir=_place(self._settings)))
        self._within = within
        self._process: subprocess.Popen[bytes] | None = None
        self._templates: dict[object, str] = {}
        try:
            if os.geteuid() == 0:
                shutil.chown(self.folder, "postgres", "postgres")
            self._initialise()
            self.start()
            self._make_roles()
        except BaseException:
            self.remove()
            raise

    def _initialise(self) -> None:
        command = [str(programs() / "initdb"), "-D", str(self.data), "-U", SUPERUSER, "--auth=trust", "--no-sync"]
        command += ["--encoding=UTF8", "--locale=C", f"--waldir={self.folder / 'wal'}"]
        done = subprocess.run([*_as_ordinary_user(), *command], capture_output=True, text=True, cwd="/", check=False)
        if done.returncode != 0:
            raise ServerFailed(f"initdb failed:\n{done.stdout}{done.stderr}")
        (self.data / "pg_hba.conf").write_text(_HBA)

    def _make_roles(self) -> None:
        with psycopg.connect(self.url("postgres", SUPERUSER), autocommit=True) as connection:
            for role in (OWNER, APPLICATION):
                connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute(f"CREATE ROLE {SECURED} LOGIN PASSWORD '{PASSWORD}'")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process is not None
        return self._process.pid

    @property
    def socket(self) -> Path:
        return self.folder / ".s.PGSQL.5432"

    def url(self, database: str, user: str) -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    # --- coming and going ----------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start it and wait until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while not self._started(deadline):
            # After a SIGKILL its sessions notice one by one that it is gone, and hold its memory until then.
            if _IN_USE not in self.log()[-2000:] or time.monotonic() > deadline:
                raise ServerFailed(f"the server does not answer:\n{self.log()[-3000:]}") from None
            time.sleep(0.02)

    def _started(self, deadline: float) -> bool:
        settings = {**self._settings, "unix_socket_directories": self.folder}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._within, *_as_ordinary_user(), str(programs() / "postgres"), "-D", str(self.data), *options],
                env={**os.environ, "NEXUS_PG_DATA": str(self.data)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                psycopg.connect(self.url("postgres", SUPERUSER)).close()
            except psycopg.OperationalError:
                time.sleep(0.01)
            else:
                return True
        return False

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends sessions and writes everything down; SIGQUIT is the crash of `pg_ctl -m immediate`."""
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    # --- databases -----------------------------------------------------------------------------------------------
    @contextmanager
    def database(
        self, *, migrated: bool = True, prepared: bool = False, tables: Sequence[Table] = TABLES
    ) -> Iterator[TestDatabase]:
        """A new database; dropped in the end, whoever is still connected.

        `migrated` is what the schema alone makes, `prepared` what the command `nexus migrate` leaves.
        """
        name = f"test_{uuid.uuid4().hex[:12]}"
        try:
            if migrated or prepared:
                yield self._copy(name, self._template(tuple(tables), prepared))
            else:
                yield self._create(name)
        finally:
            if self._process is None:
                self.start()
            with psycopg.connect(self.url("postgres", SUPERUSER), autocommit=True) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _create(self, name: str) -> TestDatabase:
        with psycopg.connect(self.url("postgres", SUPERUSER), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER {OWNER}")
        database = TestDatabase(self, name)
        database.run(f"ALTER SCHEMA public OWNER TO {OWNER}")
        return database

    def _copy(self, name: str, template: str) -> TestDatabase:
        """A copy costs a third of a migration. It is an installation of its own."""
        with psycopg.connect(self.url("postgres", SUPERUSER), autocommit=True) as connection:
            by_files = " STRATEGY FILE_COPY" if connection.info.server_version >= 150000 else ""
            connection.execute(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {template}{by_files}")
        database = TestDatabase(self, name)
        database.run("UPDATE installation SET id = %s, created_at = clock_timestamp()", (uuid.uuid4().hex,))
        return database

    def _template(self, tables: tuple[Table, ...], prepared: bool) -> str:
        """A database that is migrated once and then only copied."""
        key = (tuple(table.name for table in tables), prepared)
        if key not in self._templates:
            database = self._create(f"template_{len(self._templates)}")
            migrate(Address(database.owner), tables, APPLICATION)
            if prepared:
                store = PostgresStore(database.owner)
                prepare(store)
                store.close()
            self._templates[key] = database.name
        return self._templates[key]


@cache
def shared_server() -> Server:
    """This test process's server: nothing survives a crash of it, and nothing but its tests runs in it."""
    server = Server(fsync="off", autovacuum="off")
    atexit.register(server.remove)
    return server


@contextmanager
def private_server(**settings: Any) -> Iterator[Server]:
    """A server for one test that stops it or breaks it."""
    server = Server(**settings)
    try:
        yield server
    finally:
        server.remove()


@contextmanager
def small_server(megabytes: int, **settings: Any) -> Iterator[Server]:
    """A server whose disk is that small: memory of its own, mounted where nobody else sees it.

    Its write-ahead log lies elsewhere: a server that cannot write that stops altogether.
    """
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    alone = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0:
        alone += ["--user", "--map-current-user", "--keep-caps"]
    options = f"size={megabytes}m,mode=0700,uid={user.pw_uid},gid={user.pw_gid}"
    script = f"""
        cp -a "$NEXUS_PG_DATA" "$NEXUS_PG_DATA.copy"
        mount -t tmpfs -o {options} tmpfs "$NEXUS_PG_DATA"
        cp -a "$NEXUS_PG_DATA.copy/." "$NEXUS_PG_DATA"
        exec "$@"
    """
    with private_server(within=[*alone, "sh", "-ec", script, "sh"], **settings) as server:
        yield server


@contextmanager
def database(**more: Any) -> Iterator[TestDatabase]:
    """A new database in the shared server."""
    with shared_server().database(**more) as made:
        yield made


def dump(database: TestDatabase, *options: str, user: str = SUPERUSER) -> str:
    """Everything in the database, as SQL that makes it again."""
    command = [str(programs() / "pg_dump"), "--no-owner", *options, database.server.url(database.name, user)]
    environment = {**os.environ, "PGOPTIONS": "-c nexus.scope=all"}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return re.sub(r"^\\(un)?restrict .*\n", "", told, flags=re.MULTILINE)  # another word each time
