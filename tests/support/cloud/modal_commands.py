"""Commands that run in a sandbox of the loopback Modal, with streams that can be read and fed by offset."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from typing import IO

from grpclib import GRPCError, Status

from tests.support.cloud.common import Machine

UNREAD_LIMIT = 8 << 20
"""A command that nobody reads blocks after this many bytes, as one behind a pipe does."""
KEPT = 96 << 20
"""Bytes kept of a stream for readers that come back. The SDK may have 64 MiB in flight when a connection breaks."""


class Spool:
    """What a command wrote to one of its streams, read by byte offset as often as anyone asks."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._fd = pipe.fileno()
        self._data = bytearray()
        self._dropped = 0
        self._sent = 0
        self._ended = False
        self._changed = asyncio.Event()
        self._reading = False
        os.set_blocking(self._fd, False)
        self._resume()

    @property
    def _end(self) -> int:
        return self._dropped + len(self._data)

    def _resume(self) -> None:
        if not self._reading and not self._ended:
            asyncio.get_running_loop().add_reader(self._fd, self._fill)
            self._reading = True

    def _pause(self) -> None:
        if self._reading:
            asyncio.get_running_loop().remove_reader(self._fd)
            self._reading = False

    def _fill(self) -> None:
        try:
            chunk = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        if chunk:
            self._data += chunk
            if len(self._data) > KEPT:
                cut = len(self._data) // 2
                del self._data[:cut]
                self._dropped += cut
        else:
            self.end()
        if self._end - self._sent > UNREAD_LIMIT:
            self._pause()
        self._changed.set()

    def end(self) -> None:
        """No more will come: the pipe was closed, or the machine is no more."""
        self._pause()
        self._ended = True
        self._pipe.close()
        self._changed.set()

    async def read(self, offset: int, most: int = 1 << 16) -> bytes:
        """Wait for bytes from `offset` on; b"" at the end."""
        while True:
            if offset < self._dropped:
                raise GRPCError(Status.OUT_OF_RANGE, "this output is no longer kept")
            if offset < self._end:
                start = offset - self._dropped
                chunk = bytes(self._data[start : start + most])
                self._sent = max(self._sent, offset + len(chunk))
                if self._end - self._sent <= UNREAD_LIMIT:
                    self._resume()
                return chunk
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()


class Command:
    """One command that was started with TaskExecStart."""

    def __init__(self, machine: Machine, child: subprocess.Popen[bytes], timeout: float) -> None:
        loop = asyncio.get_running_loop()
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        self.child = child
        self._machine = machine
        self.stdout = Spool(child.stdout)
        self.stderr = Spool(child.stderr)
        self.exited = asyncio.Event()
        self.written = 0
        """Bytes of stdin that have arrived."""
        self._stdin_fd = child.stdin.fileno()
        self._stdin_open = True
        self._stdin_lock = asyncio.Lock()
        os.set_blocking(self._stdin_fd, False)
        self._pidfd = os.pidfd_open(child.pid)
        loop.add_reader(self._pidfd, self._reap)
        self._timer = loop.call_later(timeout, self._out_of_time) if timeout else None

    def _out_of_time(self) -> None:
        # Only the command itself: what it started lives on, so that an adapter cannot lean on the worker.
        self._machine.signal(self.child, signal.SIGKILL)

    def _reap(self) -> None:
        if self.child.poll() is not None:
            self.close()
            self._machine.forget(self.child)

    def close(self) -> None:
        """Stop watching. The child has ended, or its machine is being destroyed."""
        if self.exited.is_set():
            return
        self._close_stdin()
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._timer is not None:
            self._timer.cancel()
        self.exited.set()

    def abandon(self) -> None:
        self.close()
        self.stdout.end()
        self.stderr.end()

    async def write(self, offset: int, data: bytes, eof: bool) -> None:
        """Feed stdin. What was sent before (a retry) is not fed twice."""
        async with self._stdin_lock:
            fresh = data[self.written - offset :] if offset < self.written else data
            if offset > self.written:
                raise GRPCError(Status.OUT_OF_RANGE, f"stdin is at {self.written}, not at {offset}")
            if fresh and not self._stdin_open:
                raise GRPCError(Status.FAILED_PRECONDITION, "stdin is closed")
            await self._feed(fresh)
            if eof and self._stdin_open:
                self._close_stdin()

    async def _feed(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self.exited.is_set():
                raise GRPCError(Status.FAILED_PRECONDITION, "the command has exited")
            try:
                count = os.write(self._stdin_fd, view)
            except BlockingIOError:
                await asyncio.sleep(0.002)
                continue
            except BrokenPipeError:
                self._close_stdin()
                raise GRPCError(Status.FAILED_PRECONDITION, "nobody reads stdin") from None
            self.written += count
            view = view[count:]

    def _close_stdin(self) -> None:
        self._stdin_open = False
        if self.child.stdin is not None:
            with contextlib.suppress(OSError):
                self.child.stdin.close()
