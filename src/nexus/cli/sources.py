"""Code and files that a caller hands in: regular files and standard input, never more of them than may be used."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from typing import Final

from nexus.domain.errors import InvalidInput
from nexus.domain.validation import shown

_CHUNK: Final = 256 * 1024


def read_file(path: str, what: str, limit: int) -> bytes:
    """A regular file's bytes, at most `limit`; raises `InvalidInput` for anything else."""
    with open_file(path, what) as descriptor:
        return bounded(descriptor, f"The {what} {shown(path)}", limit)


def read_stdin(what: str, limit: int) -> bytes:
    """Standard input to its end, byte for byte, at most `limit`."""
    # `sys.stdin` is None where standard input was closed; a call inside a program may have put its own there.
    if sys.stdin is None:
        return b""
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise _too_large(f"The {what} on standard input", limit)
    return data


class open_file:  # noqa: N801 - used as a function
    """A regular file opened for reading, as a descriptor that is closed at the end of the `with`.

    A FIFO would block for ever and a device may never end, so neither is opened to be read.
    """

    def __init__(self, path: str, what: str) -> None:
        self._path, self._what = path, what

    def __enter__(self) -> int:
        name = f"The {self._what} {shown(self._path)}"
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else "it holds a NUL character"
            raise InvalidInput(f"{name} cannot be read: {said}", field="file") from None
        mode = os.fstat(self._descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(self._descriptor)
            kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise InvalidInput(f"{name} is {kind}", hint="Give a regular file, or '-' for stdin.", field="file")
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def chunks(descriptor: int) -> Iterator[bytes]:
    """The rest of an open file, piece by piece."""
    while data := os.read(descriptor, _CHUNK):
        yield data


def bounded(descriptor: int, name: str, limit: int) -> bytes:
    """At most `limit` bytes; one more is enough to know that it is too much."""
    gathered = bytearray()
    for data in chunks(descriptor):
        gathered += data
        if len(gathered) > limit:
            raise _too_large(name, limit)
    return bytes(gathered)


def _too_large(name: str, limit: int) -> InvalidInput:
    return InvalidInput(
        f"{name} has more than {limit} bytes",
        hint="Copy large data into the sandbox as a file (`nexus sandbox cp`) and read it from there.",
        field="code",
    )
