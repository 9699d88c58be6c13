"""A client's connection, and where the answers to one of its requests go."""

from __future__ import annotations

import os

from nexus.adapters.agent.guest import frames

_WRITE = 262144


class Peer:
    """One connection: bytes in, bytes out, never blocking."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.parser = frames.Parser()
        self.closed = False
        self._out = bytearray()
        os.set_blocking(descriptor, False)

    @property
    def backlog(self) -> int:
        """Bytes that wait to be written."""
        return len(self._out)

    def send(self, data: bytes) -> None:
        if self.closed:
            return
        idle = not self._out
        self._out += data
        if idle:
            self.flush()

    def flush(self) -> None:
        """Write what the other side takes; whoever went away is found out by reading."""
        while self._out:
            try:
                sent = os.write(self.descriptor, self._out[:_WRITE])
            except BlockingIOError:
                return
            except OSError:
                self._out.clear()
                return
            del self._out[:sent]

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._out.clear()
            os.close(self.descriptor)


class Answer:
    """Where the answers of one operation go: a peer and a channel of its."""

    def __init__(self, peer: Peer, channel: int) -> None:
        self.peer = peer
        self.channel = channel

    @property
    def key(self) -> tuple[int, int]:
        return (self.peer.descriptor, self.channel)

    def stream(self, kind: int, data: bytes) -> None:
        for item in frames.frames(kind, self.channel, data):
            self.peer.send(item)

    def fields(self, kind: int, value: dict[str, object]) -> None:
        self.peer.send(frames.frame(kind, self.channel, frames.pack(value)))

    def error(self, code: str, message: str) -> None:
        self.fields(frames.ERROR, {"code": code, "message": message[:2000]})
