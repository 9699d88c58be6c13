"""A door in front of a Postgres server that loses requests and answers on demand."""

from __future__ import annotations

import select
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

Loss = Literal["request", "answer"]


class Proxy:
    """Listens on a unix socket of its own. Everything passes until `lose` or `shut` is called."""

    def __init__(self, folder: Path, server: Path) -> None:
        self.folder = folder
        self._server = server
        self._loss: Loss | None = None
        self._when = b""
        self._shut_after = False
        self._open = True
        self.lost = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen(64)
        self._closing, self._wake = socket.socketpair()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def url(self, original: str) -> str:
        """The same database through this door."""
        return original.partition("?")[0] + f"?host={self.folder}"

    def lose(self, what: Loss, *, when: bytes = b"", then_shut: bool = False) -> None:
        """The next request (that holds `when`) never arrives, or its answer does not; its connection is over."""
        self._shut_after = then_shut
        self._when = when
        self._loss = what

    def shut(self, *, shut: bool = True) -> None:
        """Refuse new connections, or let them in again."""
        self._open = not shut

    def _accept(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._closing], [], [])
            if self._closing in ready:
                return
            client, _ = self._listener.accept()
            if not self._open:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self._server))
            except OSError:
                client.close()
                server.close()
                continue
            thread = threading.Thread(target=self._carry, args=(client, server), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        asked = False
        with client, server, suppress(OSError):
            while True:
                ready, _, _ = select.select([client, server, self._closing], [], [])
                if self._closing in ready:
                    return None
                for source in ready:
                    data = source.recv(1 << 16)
                    if not data:
                        return None
                    if source is client:
                        asked = self._loss is not None and self._when in data
                        if asked and self._loss == "request":
                            return self._cut()
                        server.sendall(data)
                    elif asked and self._loss == "answer":
                        return self._cut()
                    else:
                        client.sendall(data)

    def _cut(self) -> None:
        self._loss = None
        self.lost += 1
        if self._shut_after:
            self._open = False

    def close(self) -> None:
        self._wake.send(b".")
        for thread in self._threads:
            thread.join(5)
        for end in (self._listener, self._closing, self._wake):
            end.close()


@contextmanager
def proxy(server: Path) -> Iterator[Proxy]:
    """A door in front of the server that listens at this socket."""
    with tempfile.TemporaryDirectory(prefix="nexus-door-") as folder:
        door = Proxy(Path(folder), server)
        try:
            yield door
        finally:
            door.close()
