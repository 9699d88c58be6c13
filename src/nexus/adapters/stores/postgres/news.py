"""Telling other processes that there are new events, and being told. Nobody depends on it: whoever waits also looks.

A notification inside an append would make Postgres commit one append after the other. So it is sent afterwards, by a
thread of its own, and many appends share one.
"""

from __future__ import annotations

import os
import select
import threading
import time
from typing import Final
from weakref import WeakSet

import psycopg

from nexus.adapters.stores.postgres.database import Database
from nexus.adapters.stores.postgres.link import Link
from nexus.domain.errors import StoreError

CHANNEL: Final = "nexus_events"
_TELL: Final = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)"
"""Waits for no disk: what a crash loses of it, a look finds."""
COALESCE: Final = 0.01
"""Seconds between two notifications of one process."""
_BACK_OFF: Final = 1.0
"""Longest pause between two attempts to listen again."""

_every: WeakSet[News] = WeakSet()


class News:
    """The newest position that was announced, by this process or by others. Thread-safe, harmless across forks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begin()
        _every.add(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._heard = 0
        self._turns = 0
        self._to_tell = 0
        self._told = 0
        self._teller: threading.Thread | None = None
        self._listener: threading.Thread | None = None
        self._closed = False
        self._wake: tuple[int, int] | None = None

    # --- telling -------------------------------------------------------------------------------------------------
    def announce(self, position: int) -> None:
        """Wake whoever waits in this process now, and in other processes in a moment."""
        with self._changed:
            self._to_tell = max(self._to_tell, position)
            if self._teller is None:
                self._teller = threading.Thread(target=self._tell, name="nexus-notify", daemon=True)
                self._teller.start()
            self._hear(position)

    def _tell(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._to_tell > self._told or self._closed)
                if self._to_tell <= self._told:
                    return
                self._told = position = self._to_tell
            try:
                with self._database.using() as link:
                    link.run(_TELL, (CHANNEL, str(position)))
            except StoreError:
                pass  # who listens looks by itself, too
            if not self._closed:
                time.sleep(COALESCE)

    # --- being told ----------------------------------------------------------------------------------------------
    @property
    def turn(self) -> int:
        """Changes with every announcement."""
        return self._turns

    @property
    def heard(self) -> int:
        """The newest position announced: an older transaction may keep it from being trusted yet."""
        return self._heard

    def listen(self) -> None:
        """Hear of other processes' appends from now on."""
        with self._changed:
            if self._listener is None and not self._closed:
                self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                self._listener = threading.Thread(target=self._listen, name="nexus-listen", daemon=True)
                self._listener.start()

    def wait(self, turn: int, timeout: float) -> None:
        """Until something was announced after `turn`, or `timeout` seconds have passed."""
        with self._changed:
            self._changed.wait_for(lambda: self._turns != turn or self._closed, timeout)

    def _hear(self, position: int) -> None:
        with self._changed:
            self._heard = max(self._heard, position)
            self._turns += 1
            self._changed.notify_all()

    def _listen(self) -> None:
        pause = 0.0
        while not self._closed:
            try:
                with self._database.connect() as link:
                    link.execute(f"LISTEN {CHANNEL}")
                    pause = 0.0
                    self._hear(0)  # what was told before this moment is lost: everybody looks once
                    self._follow(link)
            except (StoreError, psycopg.Error, OSError):
                pause = min(pause * 2 + 0.05, _BACK_OFF)
            with self._changed:
                self._changed.wait_for(lambda: self._closed, pause)

    def _follow(self, link: Link) -> None:
        assert self._wake is not None
        poll = select.poll()
        poll.register(link.fileno(), select.POLLIN)
        poll.register(self._wake[0], select.POLLIN)
        while not self._closed:
            poll.poll()
            for notice in link.notifies(timeout=0):
                self._hear(int(notice.payload) if notice.payload.isdigit() else 0)

    def close(self) -> None:
        """Tell what is still to be told, and stop listening."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._wake is not None:
                os.write(self._wake[1], b".")
        for thread in (self._teller, self._listener):
            if thread is not None and thread is not threading.current_thread():
                thread.join(timeout=2)
        if self._wake is not None and (self._listener is None or not self._listener.is_alive()):
            for end in self._wake:
                os.close(end)
            self._wake = None


def _in_children() -> None:
    for news in list(_every):
        news._begin()  # the threads stayed behind


os.register_at_fork(after_in_child=_in_children)
