"""The byte streams that an agent can be reached over."""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Protocol

_READ = 262144


class ByteStream(Protocol):
    """A connected stream. One thread sends at a time and one receives; `close` may come from any."""

    def send(self, data: bytes, timeout: float) -> None:
        """Send all of it within `timeout` seconds; TimeoutError when the other side does not take it, OSError when it
        is gone. What was sent by then is not known."""
        ...

    def receive(self, timeout: float | None) -> bytes:
        """What has arrived, waiting up to `timeout` seconds (None: for ever); b"" at the end. Raises TimeoutError,
        OSError."""
        ...

    def close(self) -> None: ...


class SocketStream:
    """A connected socket, dedicated to one client."""

    def __init__(self, connected: socket.socket) -> None:
        # Blocking, and waiting by poll: a time-out set on the socket would hold for a thread that is sending as well.
        connected.settimeout(None)
        self._socket = connected
        self._readable = select.poll()
        self._readable.register(connected, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(connected, select.POLLOUT)

    def send(self, data: bytes, timeout: float) -> None:
        rest, deadline = memoryview(data), time.monotonic() + timeout
        while True:
            try:
                rest = rest[self._socket.send(rest, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                if not self._writable.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise TimeoutError("the other side does not take what is sent") from None
            if not rest:
                return
            if time.monotonic() > deadline:
                raise TimeoutError("the other side takes what is sent too slowly")

    def receive(self, timeout: float | None) -> bytes:
        if not self._readable.poll(None if timeout is None else max(0.0, timeout) * 1000):
            raise TimeoutError
        return self._socket.recv(_READ, socket.MSG_DONTWAIT)

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits
        except OSError:
            pass
        self._socket.close()


def connect_unix(folder: str, name: str, timeout: float) -> SocketStream:
    """Connect to a unix socket in `folder`, whose path may be longer than the 107 bytes that a socket address holds.

    Raises ConnectionRefusedError or FileNotFoundError when nobody listens.
    """
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.settimeout(timeout)
        connected.connect(f"/proc/self/fd/{directory}/{name}")
    except BaseException:
        connected.close()
        raise
    finally:
        os.close(directory)
    return SocketStream(connected)
