"""Connections to one database: opened at first use, shared by threads, never carried across a fork.

A pool of our own rather than psycopg's: a caller who cannot be served is told the server's reason at once, the first
call after an outage finds the server again, and there are no threads that a fork would lose. ADR 0030 has the figures.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final, TypeVar, cast
from weakref import WeakSet

import psycopg

from nexus.adapters.stores.postgres import schema
from nexus.adapters.stores.postgres.address import Address
from nexus.adapters.stores.postgres.clock import ServerClock
from nexus.adapters.stores.postgres.faults import ConnectionLost, StalePlan, lost, unavailable
from nexus.adapters.stores.postgres.link import Link
from nexus.adapters.stores.postgres.schema import ALL, SCOPE
from nexus.domain.errors import StoreUnavailable

MAX_CONNECTIONS: Final = 10
WAIT_SECONDS: Final = 10.0
"""How long a thread waits for others to give a connection back."""

T = TypeVar("T")

_every: WeakSet[Database] = WeakSet()


class Database:
    """One database. Thread-safe; a forked child gets connections of its own."""

    def __init__(self, url: str, *, max_connections: int = MAX_CONNECTIONS) -> None:
        self.address = Address(url)
        self.clock = ServerClock()
        self.seen = 0
        """The highest position that this process knows to be stored: each new connection is asked for it."""
        self._max = max_connections
        self._free = threading.Condition()
        self._idle: list[Link] = []
        self._used = 0
        self._closed = False
        self._links: WeakSet[Link] = WeakSet()
        self._held = threading.local()
        _every.add(self)

    # --- use -----------------------------------------------------------------------------------------------------
    @contextmanager
    def using(self, scope: str = ALL) -> Iterator[Link]:
        """A connection in autocommit; the thread's own one inside `holding`.

        Raises `StoreUnavailable`, `ConnectionLost` when it broke in the middle, and `ValueError` for a value that
        cannot be stored; a violated constraint passes as psycopg's error.
        """
        held: Link | None = getattr(self._held, "link", None)
        if held is not None and held.scope == scope:
            yield held
            return
        link = self._take(scope)
        link.uses += 1
        try:
            yield link
        except psycopg.IntegrityError:
            raise
        except psycopg.DataError as error:
            raise ValueError(f"A value cannot be stored: {error.diag.message_primary or error}") from None
        except psycopg.Error as error:
            raise self._told(error, link) from None
        finally:
            self._give_back(link)

    def _told(self, error: psycopg.Error, link: Link) -> Exception:
        if link.closed:
            broken = lost(error, self.address)
            broken.reused = link.uses > 1
            return broken
        told = unavailable(error, self.address)
        if isinstance(told, StalePlan):
            link.close()
        return told

    @contextmanager
    def holding(self) -> Iterator[Link]:
        """Like `using`, and whatever this thread asks meanwhile goes over the same connection."""
        with self.using() as link:
            self._held.link = link
            try:
                yield link
            finally:
                self._held.link = None

    @property
    def is_held(self) -> bool:
        """Whether this thread is inside `holding`."""
        return getattr(self._held, "link", None) is not None

    def ask(self, question: Callable[[Link], T], scope: str = ALL) -> T:
        """Ask what may be asked twice: again over a new connection if an old one turns out to be broken."""
        for attempt in (1, 2, 3):
            try:
                with self.using(scope) as link:
                    return question(link)
            except ConnectionLost as error:
                if attempt == 3 or not error.reused:
                    raise
            except StalePlan:
                if attempt == 3:
                    raise
            self._forget_idle()
        raise AssertionError("unreachable")

    def ask_for_pages(self, question: Callable[[Link], Iterable[T]]) -> Generator[T, None, None]:
        """Like `ask`, for an answer in pages that are worked on while the server makes the next.

        A connection is in use until the last page was taken, or the generator is closed. One that breaks is replaced
        only as long as no page was given out.
        """
        if self.is_held:  # what the thread asks meanwhile goes over the same connection
            yield from self.ask(lambda link: list(question(link)))
            return
        for attempt in (1, 2, 3):
            begun = False
            try:
                with self.using() as link:
                    for page in question(link):
                        begun = True
                        yield page
                return
            except ConnectionLost as error:
                if begun or attempt == 3 or not error.reused:
                    raise
            except StalePlan:
                if attempt == 3:
                    raise
            self._forget_idle()

    def now(self) -> datetime:
        """The server's clock: never ahead of it, and behind by less than a round trip."""
        return self.clock.now(self._ask_the_time)

    def _ask_the_time(self) -> datetime:
        ((moment,),) = self.ask(lambda link: link.run("SELECT clock_timestamp()"))
        return cast(datetime, moment)

    def connect(self) -> Link:
        """A connection outside the pool, for who closes it; checked like all others."""
        try:
            link = Link.to(self.address.parameters(options=f"{self.address.parameters()['options']} -c {SCOPE}={ALL}"))
        except psycopg.Error as error:
            raise unavailable(error, self.address) from None
        try:
            found = schema.inspect(link, self.address, self.seen)
            self.clock.set(found.clock)
            link.epoch = found.epoch
            self.installation = found.id
        except psycopg.Error as error:
            link.close()
            raise unavailable(error, self.address) from None
        except BaseException:
            link.close()
            raise
        self._links.add(link)
        return link

    def close(self) -> None:
        """Close what is idle now and what is in use when it comes back. Using it again raises `StoreUnavailable`."""
        with self._free:
            self._closed = True
            self._free.notify_all()
        self._forget_idle()

    # --- the pool ------------------------------------------------------------------------------------------------
    def _take(self, scope: str) -> Link:
        deadline = time.monotonic() + WAIT_SECONDS
        with self._free:
            while self._used >= self._max and not self._closed:
                if not self._free.wait(deadline - time.monotonic()):
                    raise StoreUnavailable(
                        f"All {self._max} connections to the database {self.address} were in use for"
                        f" {WAIT_SECONDS:.0f} s",
                        hint="Ask for less at once, or look what makes the database slow.",
                    )
            if self._closed:
                raise StoreUnavailable(f"The store {self.address} was closed", hint="Open it again.")
            self._used += 1
            link = self._pick(scope)
        try:
            while link is not None and not link.is_fit():
                link.close()
                with self._free:
                    link = self._pick(scope)
            link = link or self.connect()
            if link.scope != scope:
                link.execute("SELECT set_config(%s, %s, false)", (SCOPE, scope))
                link.scope = scope
        except psycopg.Error as error:
            self._give_back(link)
            raise unavailable(error, self.address) from None
        except BaseException:
            self._give_back(link)
            raise
        return link

    def _pick(self, scope: str) -> Link | None:
        """The idle connection that was used last, rather one that shows this scope already."""
        for number in range(len(self._idle) - 1, -1, -1):
            if self._idle[number].scope == scope:
                return self._idle.pop(number)
        return self._idle.pop() if self._idle else None

    def _give_back(self, link: Link | None) -> None:
        keep = link is not None and not link.closed
        if link is not None and keep and link.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            link.close()  # interrupted in the middle: what it would answer next is not known
            keep = False
        with self._free:
            self._used -= 1
            if link is not None and keep and not self._closed:
                link.used = time.monotonic()
                self._idle.append(link)
                link = None
            self._free.notify()
        if link is not None:
            link.close()

    def _forget_idle(self) -> None:
        with self._free:
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    # --- forks ---------------------------------------------------------------------------------------------------
    def _in_child(self) -> None:
        """Two processes must not talk over one connection, and closing it would end the parent's, too."""
        self._free = threading.Condition()
        self._held = threading.local()
        self._idle = []
        self._used = 0
        dead, other = socket.socketpair()
        other.close()
        with dead:
            for link in list(self._links):
                if not link.closed:
                    os.dup2(dead.fileno(), link.fileno(), inheritable=False)
                    link.close()


def _in_children() -> None:
    for database in list(_every):
        database._in_child()


os.register_at_fork(after_in_child=_in_children)
