"""Fixtures over the shared private engine; import the ones that a test module needs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.dockerd import Engine, shared_engine
from tests.support.dockerd_images import BARE, base_image
from tests.support.dockerd_images import default_image as build_default_image


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Engine]:
    """The engine that all workers and runs of this user share; every test uses an installation id of its own."""
    with shared_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def docker_image(docker_engine: Engine) -> str:
    """The project's default image."""
    return build_default_image(docker_engine)


@pytest.fixture(scope="session")
def bare_image(docker_engine: Engine) -> str:
    """An image without Python."""
    return base_image(docker_engine, BARE)


class Doorway:
    """The engine's socket behind a TCP port on loopback: to a client, an engine on another machine.

    `cut` drops what is connected and, until `mend`, refuses what comes; `hang` accepts and says nothing.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.refusing = False
        self.hanging = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        self.refusing = True
        with self._lock:
            links, self._open = self._open, set()
        for link in links:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.refusing = self.hanging = False

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                near.close()
                continue
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(str(self._target))
            except OSError:
                near.close()
                far.close()
                continue
            with self._lock:
                self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self.hanging:
                    sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with self._lock:
            if source in self._open:
                self._open.discard(source)
                return
        source.close()


@pytest.fixture
def remote_engine(docker_engine: Engine) -> Iterator[Doorway]:
    """The same engine, reached as one on another machine is."""
    doorway = Doorway(docker_engine.socket)
    yield doorway
    doorway.close()
