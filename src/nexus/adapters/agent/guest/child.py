"""A process that the zygote forked, as the agent sees it: a slot number, pipes, and news of its end."""

from __future__ import annotations

import _socket
import os
import time

from nexus.adapters.agent.guest import frames, zygote

_READ = 65536
_DRAIN_ROUNDS = 64
PIPES = ("stdin", "stdout", "stderr", "report")
"""The pipes that the agent watches."""


def now() -> float:
    """Seconds of a clock that also runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Child:
    """One program: what it wrote and how it ended. It is forked first and told what to become later."""

    def __init__(self, slot: int, control: _socket.socket) -> None:
        self.slot = slot
        self.control = control
        """Who forks it, kills it and tells of its end: the zygote, or a session."""
        self.folder = ""
        """Where its source is; goes with it."""
        self.spec = self.stdin = self.stdout = self.stderr = self.report = -1
        self.gone = False
        """Nothing of it is alive, and the zygote has reaped it."""
        self.status: int | None = None
        """The program's wait status; None when it was killed before it ended by itself, or never started."""
        self.failure = 0
        """The errno with which the zygote could not fork it."""

    @property
    def ended(self) -> bool:
        """No process of it is alive."""
        return self.gone or self.status is not None or self.failure != 0

    def fork(self) -> None:
        """Have it forked. Raises OSError when there are no descriptors left; then nothing has started."""
        theirs = []
        try:
            for name in ("spec", "stdin"):
                read, write = os.pipe2(os.O_CLOEXEC)
                theirs.append(read)
                setattr(self, name, write)
            for name in ("stdout", "stderr", "report"):
                read, write = os.pipe2(os.O_CLOEXEC)
                theirs.append(write)
                setattr(self, name, read)
                os.set_blocking(read, False)
            os.set_blocking(self.stdin, False)
            zygote.send(self.control, zygote.START, self.slot, 0, theirs)
        except OSError:
            self.close()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def kill(self) -> None:
        """End it; whoever forked it tells when it is gone."""
        try:
            zygote.send(self.control, zygote.KILL, self.slot)
        except OSError:
            pass  # of a session that is over: it is dead already

    def become(self, spec: dict[str, object], extra: bytes | None = None, more: bool = False) -> None:
        """Tell it what to become. `extra` is what the program finds at descriptor 3, `more` that some will follow."""
        body = frames.pack({**spec, "extra": extra is not None})
        self._write(zygote.LENGTH.pack(len(body)) + body + (extra or b""))
        if not more:
            self.end_spec()

    def hand_over(self, extra: bytes) -> None:
        """The rest of what the program reads from descriptor 3."""
        self._write(extra)
        self.end_spec()

    def end_spec(self) -> None:
        os.close(self.spec)
        self.spec = -1

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.spec, view) :]
        except BrokenPipeError:
            pass  # it has died meanwhile, which its report will tell

    def read_report(self) -> bool:
        """Take the report of the run's init, if it is there. True when there will be none any more."""
        if self.report < 0:
            return False
        try:
            data = os.read(self.report, zygote.STATUS.size)
        except BlockingIOError:
            return False
        if len(data) == zygote.STATUS.size:
            (self.status,) = zygote.STATUS.unpack(data)
        return not data

    def left_in(self, name: str) -> list[bytes]:
        """What is still in a pipe of a program that has ended.

        Not until the pipe's end: who passed its descriptor to another run would keep this one open. Nor for ever: that
        other may be writing.
        """
        found = []
        for _ in range(_DRAIN_ROUNDS):
            data = self.read(name)
            if not data:
                break
            found.append(data)
        return found

    def read(self, name: str) -> bytes | None:
        """Up to 64 KiB of "stdout" or "stderr"; None when there is nothing yet, b"" at the end."""
        descriptor = getattr(self, name)
        try:
            return os.read(descriptor, _READ) if descriptor >= 0 else None
        except BlockingIOError:
            return None

    def close(self) -> None:
        for name in ("spec", *PIPES):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)

    def remove_folder(self) -> None:
        if self.folder:
            for name in os.listdir(self.folder):
                os.unlink(self.folder + "/" + name)
            os.rmdir(self.folder)
            self.folder = ""
