"""A process beside the container's first one (`docker exec`), as two byte streams and an exit code.

The SDK's own way to tell output streams apart takes time quadratic in their size, so the frames are read here.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nexus.adapters.providers.docker.engine import Engine, status_of
from nexus.domain.errors import ProviderGone, ProviderNotRunning, ProviderOutcomeUnknown
from nexus.domain.provider import Stream

_HEADER = struct.Struct(">BxxxI")
_STREAMS: Mapping[int, Stream] = {1: "stdout", 2: "stderr"}
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process beside ended, as far as the engine knows."""

    running: bool
    exit_code: int | None


class ExecStream:
    """One such process, started. Sending and receiving may happen in two threads; closing does not end the process."""

    def __init__(
        self,
        engine: Engine,
        container_id: str,
        argv: Sequence[str],
        *,
        user: str,
        env: Mapping[str, str] | None = None,
        workdir: str = "/",
        doing: str = "start a process in the container",
    ) -> None:
        """Start it. Raises ProviderGone, ProviderNotRunning when the container cannot take it."""
        self._engine = engine
        self._sending = threading.Lock()
        import docker.errors

        with engine.translated(doing, effect=True) as client:
            try:
                self.exec_id = str(
                    client.exec_create(
                        container_id, list(argv), stdin=True, user=user, environment=dict(env or {}), workdir=workdir
                    )["Id"]
                )
                self._socket: Any = client.exec_start(self.exec_id, socket=True)
            except docker.errors.NotFound:
                raise ProviderGone("The container does not exist any more") from None
            except docker.errors.APIError as error:
                if status_of(error) == 409:
                    raise ProviderNotRunning("The container does not run") from None
                raise
        # What came right behind the answer's headers lies in the response's buffer already.
        response = getattr(self._socket, "_response", None)
        self._reader: Any = getattr(getattr(getattr(response, "raw", None), "_fp", None), "fp", None)
        self._link: Any = getattr(self._socket, "_sock", self._socket)
        with suppress(AttributeError, OSError):
            self._link.settimeout(None)

    def send(self, data: bytes) -> None:
        """Give it to the process's stdin. Raises OSError when nobody reads any more."""
        with self._sending:
            self._link.sendall(data)

    def finish_input(self) -> None:
        """Nothing more comes: the process reads the end of its stdin. What it writes still arrives."""
        import socket

        with self._sending, suppress(OSError, AttributeError):
            self._link.shutdown(socket.SHUT_WR)

    def output(self) -> Iterator[tuple[Stream, bytes]]:
        """What it writes, as it comes, until it and all that hold its streams have closed them."""
        while True:
            header = self._exactly(_HEADER.size)
            if header is None:
                return
            number, length = _HEADER.unpack(header)
            stream = _STREAMS.get(number, "stderr")
            while length:
                chunk = self._some(min(length, _CHUNK))
                if not chunk:
                    return
                length -= len(chunk)
                yield stream, chunk

    def _exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            more = self._some(size - len(data))
            if not more:
                return None
            data += more
        return data

    def _some(self, size: int) -> bytes:
        try:
            if self._reader is not None and hasattr(self._reader, "read1"):
                return bytes(self._reader.read1(size))
            return bytes(self._link.recv(size))
        except (OSError, ValueError):
            return b""

    def ending(self) -> Ending:
        """Whether it runs and how it ended. Raises ProviderOutcomeUnknown when the engine has forgotten it."""
        import docker.errors

        with self._engine.translated("ask how a process ended") as client:
            try:
                found = client.exec_inspect(self.exec_id)
            except docker.errors.NotFound:
                raise ProviderOutcomeUnknown("The engine does not know the process any more") from None
        return Ending(bool(found["Running"]), found["ExitCode"])

    def close(self) -> None:
        """Let go of the streams; the process reads the end of its stdin."""
        import socket

        with suppress(OSError, AttributeError):
            self._link.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._link.close()
        with suppress(OSError, ValueError):
            self._socket.close()
        response = getattr(self._socket, "_response", None)
        if response is not None:
            with suppress(OSError, ValueError):
                response.close()
