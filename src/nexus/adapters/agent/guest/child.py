"""A process that the zygote forked, as the agent sees it: a slot number, pipes, and news of its end."""

from __future__ import annotations

import _socket
import os
import time

from nexus.adapters.agent.guest import frames, zygote

_READ = 65536


def now() -> float:
    """Seconds of a clock that also runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Child:
    """One program: what it wrote and how it ended. `folder` holds its source and goes with it."""

    def __init__(self, slot: int, folder: str) -> None:
        self.slot = slot
        self.folder = folder
        self.stdin = self.stdout = self.stderr = self.report = self.extra = -1
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

    def start(self, control: _socket.socket, spec: dict[str, object], with_stdin: bool, with_extra: bool) -> None:
        """Have the zygote fork it. Raises OSError when there are no descriptors left; then nothing has started."""
        theirs = []
        try:
            described = os.memfd_create("spec", os.MFD_CLOEXEC)
            theirs.append(described)
            os.write(described, frames.pack(spec))
            if with_stdin:
                read, self.stdin = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(self.stdin, False)
            else:
                read = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            theirs.append(read)
            for name in ("stdout", "stderr", "report"):
                mine, write = os.pipe2(os.O_CLOEXEC)
                theirs.append(write)
                os.set_blocking(mine, False)
                setattr(self, name, mine)
            if with_extra:
                read, self.extra = os.pipe2(os.O_CLOEXEC)
                theirs.append(read)
            zygote.send(control, zygote.START, self.slot, 0, theirs)
        except OSError:
            self.close()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def read_report(self) -> None:
        """Take the report of the run's init, if it is there."""
        if self.report < 0:
            return
        try:
            data = os.read(self.report, zygote.STATUS.size)
        except BlockingIOError:
            return
        if len(data) == zygote.STATUS.size:
            (self.status,) = zygote.STATUS.unpack(data)

    def close(self) -> None:
        for name in ("stdin", "stdout", "stderr", "report", "extra"):
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


def read_some(descriptor: int) -> bytes | None:
    """Up to 64 KiB; None when there is nothing yet, b"" at the end."""
    try:
        return os.read(descriptor, _READ)
    except BlockingIOError:
        return None
