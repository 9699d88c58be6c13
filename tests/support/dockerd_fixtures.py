"""Fixtures over the shared private engine; import the ones that a test module needs."""

from __future__ import annotations

import select
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

    `cut` drops what is connected and, until `mend`, refuses what comes; `hanging` swallows what the engine says.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._cut = threading.Event()
        self.hanging = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        self._cut.set()
        for thread in self._threads[1:]:
            thread.join(5)

    def mend(self) -> None:
        self._cut.clear()
        self.hanging = False

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(5)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._cut.is_set():
                near.close()
                continue
            thread = threading.Thread(target=self._serve, args=(near,))
            self._threads = [known for known in self._threads if known.is_alive()] + [thread]
            thread.start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.socket(socket.AF_UNIX) as far, suppress(OSError):
            far.connect(str(self._target))
            others = {near: far, far: near}
            reading = {near, far}
            while reading and not self._cut.is_set():
                for source in select.select(reading, [], [], 0.05)[0]:
                    data = source.recv(65536)
                    if not data:
                        reading.discard(source)
                        others[source].shutdown(socket.SHUT_WR)
                    elif source is near or not self.hanging:
                        others[source].sendall(data)
                if far not in reading:
                    return  # the engine has said all that it had to


@pytest.fixture
def remote_engine(docker_engine: Engine) -> Iterator[Doorway]:
    """The same engine, reached as one on another machine is."""
    doorway = Doorway(docker_engine.socket)
    yield doorway
    doorway.close()
