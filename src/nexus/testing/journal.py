"""How several processes share one fake cloud: an append-only file of changes, which each folds into its own memory."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from nexus.testing.records import Change, decode, encode


class Journal(Protocol):
    """Takes changes, and gives those of other processes, in one order for all."""

    def exclusively(self) -> AbstractContextManager[None]:
        """Nobody else reads or writes meanwhile, and what others wrote has been applied."""
        ...

    def append(self, change: Change) -> None: ...


class MemoryJournal:
    """One process: there is nothing to write down."""

    def __init__(self, apply: Callable[[Change], None]) -> None:
        self._apply = apply
        self._lock = threading.RLock()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        with self._lock:
            yield

    def append(self, change: Change) -> None:
        self._apply(change)


class FileJournal:
    """Several processes, any of which may be killed at any time.

    A change is one line. A writer that is killed in the middle leaves a torn last line, which the next one cuts off:
    that change never happened. `flock` falls with its holder, so a dead process holds nobody up.
    """

    def __init__(self, path: Path, apply: Callable[[Change], None], reset: Callable[[], None]) -> None:
        self._path = path
        self._apply = apply
        self._reset = reset
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def _open(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._depth = 0
        self._offset = 0
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._reset()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        if os.getpid() != self._owner:
            # A forked child shares its parent's open file and so the parent's lock: it needs one of its own.
            self._open()
        with self._lock:
            if self._depth == 0:
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            self._depth += 1
            try:
                if self._depth == 1:
                    self._catch_up()
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)

    def append(self, change: Change) -> None:
        self._offset += os.write(self._fd, encode(change))
        self._apply(change)

    def _catch_up(self) -> None:
        size = os.fstat(self._fd).st_size
        if size == self._offset:
            return
        data = os.pread(self._fd, size - self._offset, self._offset)
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._fd, self._offset + whole)
        self._offset += whole
        for line in data[:whole].splitlines():
            self._apply(decode(line))
