"""Files in and out, with the sandbox's own shell: Modal's file calls need a program that not every image has.

A path means what it means to a program there: relative ones start in the working folder, and links are followed
within the sandbox, which knows no other files than its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, Final

from nexus.adapters.providers.modal.commands import Commands
from nexus.adapters.providers.modal.session import Session
from nexus.domain.errors import FileNotInSandbox, InvalidInput, ProviderError

TRANSFER_TIMEOUT: Final = 600
"""Seconds that the transfer of one file may take."""
SPOOL: Final = 8 << 20
"""Bytes of a file on its way in that are held in memory; the rest waits in a temporary file."""

# Argument: the path. First a line that says what is there, then the content.
_READ: Final = """
if [ ! -e "$1" ]; then echo missing
elif [ ! -f "$1" ]; then echo "not a file"
elif [ ! -r "$1" ]; then echo "not readable"
else echo "ok $(wc -c <"$1")"; exec cat <"$1"
fi
"""
# Arguments: path, a word for the temporary file, the number of bytes. The file appears whole or not at all.
_WRITE: Final = """
case "$1" in
  */) echo "not a file"; exit;;
  */*) dir=${1%/*}; dir=${dir:-/}; mkdir -p -- "$dir" 2>&1 || exit;;
  *) dir=.;;
esac
if [ -d "$1" ]; then echo "not a file"; exit; fi
new=$dir/.nexus-$2
{ true >"$new"; } 2>&1 || exit
trap 'rm -f -- "$new"' EXIT
cat >"$new" || exit 1
if [ "$(wc -c <"$new")" -ne "$3" ]; then echo "incomplete" >&2; exit 1; fi
mv -f -- "$new" "$1" 2>&1 && echo ok
"""


def read(commands: Commands, modal_id: str, path: str, limit: int, step_timeout: float) -> Iterator[bytes]:
    """The content in chunks. No more is fetched than is asked for next."""
    checked(path)
    source = _Source(modal_id, ["sh", "-c", _READ, "nexus", path])
    step = "read a file"
    try:
        said, rest = commands.inside(modal_id, step, source.open, step_timeout)
        if said == "missing":
            raise FileNotInSandbox(f"There is no file {path} in the sandbox", path=path)
        word, _, size = said.partition(" ")
        if word != "ok":
            raise InvalidInput(f"{path} is {said}", path=path)
        if int(size) > limit:
            raise InvalidInput(f"{path} has {size.strip()} bytes; at most {limit} are allowed", path=path, limit=limit)
        total = 0
        chunk: bytes | None = rest
        while chunk is not None:
            total += len(chunk)
            if total > limit:  # it has grown since it was measured
                raise InvalidInput(f"{path} has more than {limit} bytes", path=path, limit=limit)
            if chunk:
                yield chunk
            chunk = commands.inside(modal_id, step, source.more, step_timeout)
        if total < int(size):
            raise ProviderError(f"Only {total} of {int(size)} bytes of {path} arrived")
    finally:
        # Also when the caller stops in the middle; by then nothing that goes wrong is worth another error.
        with contextlib.suppress(ProviderError):
            commands.inside(modal_id, step, source.close, step_timeout)


def write(commands: Commands, modal_id: str, path: str, chunks: Iterable[bytes], limit: int) -> int:
    """All of it is taken in before anything is sent, so too much of it changes nothing."""
    checked(path)
    with tempfile.SpooledTemporaryFile(SPOOL) as spool:
        size = 0
        for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise InvalidInput(f"More than {limit} bytes for {path}", path=path, limit=limit)
            spool.write(chunk)
        spool.seek(0)
        argv = ["sh", "-c", _WRITE, "nexus", path, uuid.uuid4().hex, str(size)]
        code, out, err = commands.script(modal_id, "write a file", argv, spool.read(), TRANSFER_TIMEOUT)
    answer = (out or err).decode(errors="replace").strip()
    if code != 0 and not out:
        raise ProviderError(f"{path} could not be written: {answer}")
    if answer != "ok":
        raise InvalidInput(f"{path} cannot be written: {answer}", path=path)
    return size


def checked(path: str) -> None:
    if not path or "\0" in path:
        raise InvalidInput("This is not a path")


class _Source:
    """A command whose output is pulled, step by step. Its methods run on the connection's loop."""

    def __init__(self, modal_id: str, argv: list[str]) -> None:
        self._modal_id = modal_id
        self._argv = argv
        self._stream: Any = None

    async def open(self, session: Session) -> tuple[str, bytes]:
        """The first line, and what came with it."""
        sandbox = await session.handle(self._modal_id)
        if sandbox is None:
            from modal.exception import NotFoundError

            raise NotFoundError("the sandbox has ended")
        process = await sandbox.exec.aio(*self._argv, timeout=TRANSFER_TIMEOUT, text=False)
        self._stream = aiter(process.stdout)
        begun = b""
        while b"\n" not in begun:
            chunk = await self.more(session)
            if chunk is None:
                raise ConnectionError("no answer from the sandbox's shell")
            begun += chunk
        line, _, rest = begun.partition(b"\n")
        return line.decode(errors="replace"), rest

    async def more(self, session: Session) -> bytes | None:
        """The next bytes; None at the end."""
        chunk: bytes | None = await anext(self._stream, None)
        return chunk

    async def close(self, session: Session) -> None:
        """Stop reading. The command ends when it notices that nobody takes what it writes, or by its time-out."""
        if self._stream is not None:
            await asyncio.shield(self._stream.aclose())
