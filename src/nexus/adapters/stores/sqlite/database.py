"""Connections to one SQLite file: made ready at first use, shared by threads, never carried across a fork.

Standard library only, because commands that merely read the views start with this.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from weakref import WeakSet

from nexus.adapters.stores.sqlite import schema
from nexus.adapters.stores.sqlite.faults import is_kept_out, is_passing, unavailable
from nexus.domain.errors import StoreUnavailable
from nexus.domain.ports import Table

BUSY_SECONDS: Final = 30.0
"""How long a writer waits for the writers of other processes, and a fork for the threads of this one."""
_IDLE: Final = 8
"""Connections kept open for the next user; more are closed on return."""

_every: WeakSet[Database] = WeakSet()


class Database:
    """One file. Thread-safe; a forked child gets connections of its own.

    SQLite keeps its locks per process and shares them among the connections of a process: a child that inherits open
    ones believes to hold locks that only its parent holds. So every connection is closed before a fork.
    """

    def __init__(
        self,
        path: Path,
        *,
        readonly: bool = False,
        tables: Sequence[Table] = (),
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        self.path = path.absolute()
        self.readonly = readonly
        self._tables = tuple(tables)
        self._busy_seconds = busy_seconds
        self._free = threading.Condition()
        self._writer = threading.Lock()
        self._news = threading.Condition()
        self.announced = 0
        """Changes with each of this process's announcements."""
        self._waiting = 0
        self._idle: list[sqlite3.Connection] = []
        self._kept = _IDLE
        self._used = 0
        self._mine = threading.local()
        self._forking = False
        self._closed = False
        self._is_prepared = False
        _every.add(self)

    # --- use -----------------------------------------------------------------------------------------------------
    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for statements that each see one moment. Raises `StoreUnavailable`."""
        connection = self._take()
        try:
            yield connection
        except sqlite3.Error as error:
            raise unavailable(error, self.path) from error
        finally:
            self._give_back(connection)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that has the write lock from its beginning, and so never meets "database is locked".

        Commits at the end, rolls back on any exception. `sqlite3.IntegrityError` passes as it is, a value of a kind
        that no column takes is a `ValueError`; every other failure is `StoreUnavailable`. Then nothing was stored.
        """
        if not self._writer.acquire(timeout=self._busy_seconds):
            raise StoreUnavailable(f"Writers to {self.path} waited {self._busy_seconds:.0f} s for each other")
        try:
            connection = self._take()
            try:
                self._begin(connection)
                try:
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.rollback()
            except sqlite3.IntegrityError:
                raise
            except (sqlite3.ProgrammingError, sqlite3.InterfaceError, OverflowError) as error:
                raise ValueError(f"A value cannot be stored: {error}") from error
            except sqlite3.Error as error:
                raise unavailable(error, self.path) from error
            finally:
                self._give_back(connection)
        finally:
            self._writer.release()

    def exists(self) -> bool:
        """Whether anything was ever stored. A reader must not make a file only by looking."""
        try:
            return self.path.stat().st_size > 0
        except FileNotFoundError:
            return False
        except OSError as error:
            raise unavailable(error, self.path) from error

    def announce(self) -> None:
        """Wake this process's waiting readers: there is something new. Costs next to nothing while nobody waits."""
        self.announced += 1
        if self._waiting:
            with self._news:
                self._news.notify_all()

    def wait_for_news(self, seen: int, timeout: float) -> None:
        """Until somebody in this process announced, or `timeout` seconds have passed.

        An announcement at the very beginning may go unheard: callers look again after a short time-out anyway.
        """
        with self._news:
            self._waiting += 1
            try:
                self._news.wait_for(lambda: self.announced != seen, timeout)
            finally:
                self._waiting -= 1

    def close(self) -> None:
        """Close what is idle now and what is in use when it comes back. Using it again raises `StoreUnavailable`."""
        with self._free:
            self._closed = True
            self._close_idle()

    def __del__(self) -> None:
        """A database that nobody closed leaves no open file behind."""
        for connection in vars(self).get("_idle", ()):
            connection.close()

    # --- connections ---------------------------------------------------------------------------------------------
    def _take(self) -> sqlite3.Connection:
        with self._free:
            # A thread that holds a connection gets its second one even now: the fork waits for its first.
            while self._forking and not self._held():
                self._free.wait()
            if self._closed:
                raise StoreUnavailable(f"The store {self.path} was closed", hint="Open it again.")
            self._used += 1
            self._mine.count = self._held() + 1
            if self._idle:
                return self._idle.pop()
        try:
            return self._open()
        except BaseException:
            self._give_back(None)
            raise

    def _give_back(self, connection: sqlite3.Connection | None) -> None:
        with self._free:
            self._used -= 1
            self._mine.count = self._held() - 1
            if connection is not None:
                if self._closed or len(self._idle) >= self._kept:
                    connection.close()
                else:
                    self._idle.append(connection)
            if self._forking and self._used == 0:
                self._free.notify_all()

    def _held(self) -> int:
        return getattr(self._mine, "count", 0)

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _open(self) -> sqlite3.Connection:
        try:
            if not self.readonly:
                if not self._is_prepared:
                    schema.make_file(self.path)
                return self._connect("rw")
            try:
                return self._connect("ro")
            except sqlite3.OperationalError as error:
                if not is_kept_out(error) or not self._is_at_rest():
                    raise
                # Even reading needs a file of locks beside the store. Where none can be made, and no writer left
                # anything behind, the file is read as it lies there, anew for each question.
                self._kept = 0
                return self._connect("ro&immutable=1")
        except (sqlite3.Error, OSError) as error:
            raise unavailable(error, self.path) from error

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode={mode}",
            uri=True,
            timeout=self._busy_seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_at_rest(self) -> bool:
        wal = self.path.with_name(self.path.name + "-wal")
        return not wal.exists() or wal.stat().st_size == 0

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if self.readonly:
            connection.execute("PRAGMA query_only = ON")
            schema.check(connection, self.path)
            return
        connection.execute("PRAGMA synchronous = FULL")
        # What an erasure deletes is to be gone from the file, too.
        connection.execute("PRAGMA secure_delete = ON").close()
        if not self._is_prepared:
            self._patiently(lambda: schema.use_wal(connection))
            if schema.is_behind(connection, self.path, self._tables):
                self._begin(connection)
                try:
                    schema.migrate(connection, self.path, self._tables)
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.rollback()
            self._is_prepared = True

    def _begin(self, connection: sqlite3.Connection) -> None:
        self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))

    def _patiently(self, act: Callable[[], object]) -> None:
        """SQLite's own busy time-out leaves out some moments: the switch to WAL, recovery, a contended read mark."""
        deadline = time.monotonic() + self._busy_seconds
        pause = 0.001
        while True:
            try:
                act()
                return
            except sqlite3.OperationalError as error:
                if not is_passing(error) or time.monotonic() >= deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    # --- forks ---------------------------------------------------------------------------------------------------
    def _before_fork(self) -> None:
        with self._free:
            self._forking = True
            self._free.wait_for(lambda: self._used == 0, timeout=self._busy_seconds)
            self._close_idle()

    def _after_fork(self) -> None:
        with self._free:
            self._forking = False
            self._free.notify_all()

    def _in_child(self) -> None:
        # The other threads are gone and with them whoever would release these.
        self._free = threading.Condition()
        self._writer = threading.Lock()
        self._news = threading.Condition()
        self._waiting = 0
        self._used = 0
        self._mine = threading.local()
        self._forking = False


def is_any_in_use() -> bool:
    """Whether a fork would have to wait."""
    return any(database._used for database in list(_every))


def _before_forks() -> None:
    for database in list(_every):
        database._before_fork()


def _after_forks() -> None:
    for database in list(_every):
        database._after_fork()


def _in_children() -> None:
    for database in list(_every):
        database._in_child()


os.register_at_fork(before=_before_forks, after_in_parent=_after_forks, after_in_child=_in_children)
