"""How a method reaches Modal: one step at a time, each with a deadline and an error in the words of the port."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from nexus.adapters.providers.modal.failures import translate
from nexus.adapters.providers.modal.portal import Portal
from nexus.adapters.providers.modal.session import Session

T = TypeVar("T")
Work = Callable[[Session], Coroutine[Any, Any, T]]


class Calls:
    """Connects when it is first used, and again in a process that was forked. Thread-safe."""

    def __init__(self, open_session: Callable[[], Session], connect_timeout: float) -> None:
        self._open_session = open_session
        self._connect_timeout = connect_timeout
        self._lock = threading.Lock()
        self._open: tuple[Portal, Session] | None = None

    def do(self, doing: str, work: Work[T], timeout: float, *, changes: bool = False) -> T:
        """One step. It may take `timeout` seconds; `changes` says that it may have an effect (see `translate`)."""
        portal, session = self._connected()
        return self._translated(doing, lambda: portal.call(work(session), timeout), changes)

    def submit(self, work: Work[T]) -> Future[T]:
        """Start something whose deadline is its own business. Its errors are not translated."""
        portal, session = self._connected()
        return portal.submit(work(session))

    def close(self) -> None:
        with self._lock:
            opened, self._open = self._open, None
        if opened is None or opened[0].pid != os.getpid():
            return
        portal, session = opened
        try:
            portal.call(session.close(), self._connect_timeout)
        except TimeoutError:
            pass  # the server does not take its leave; what is left of the connection goes with the loop
        finally:
            portal.close()

    def _connected(self) -> tuple[Portal, Session]:
        with self._lock:
            # A fork inherits neither the thread nor anything that may be said over the connection.
            if self._open is None or self._open[0].pid != os.getpid():
                self._open = (Portal(), self._open_session())
            portal, session = self._open
        if not session.connected:
            self._translated("connect", lambda: portal.call(session.app(), self._connect_timeout), changes=False)
        return portal, session

    @staticmethod
    def _translated(doing: str, call: Callable[[], T], changes: bool) -> T:
        try:
            return call()
        except Exception as error:
            failure = translate(error, doing, changes=changes)
            if failure is None or failure is error:
                raise
            raise failure from error
