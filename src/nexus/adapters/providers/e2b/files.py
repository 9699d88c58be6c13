"""Files in and out of an E2B sandbox."""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final

from nexus.adapters.providers.e2b.faults import translate
from nexus.domain.errors import (
    FileNotInSandbox,
    InvalidInput,
    NexusError,
    ProviderGone,
    ProviderNotRunning,
    ProviderUnavailable,
)

if TYPE_CHECKING:
    from e2b import Sandbox

    from nexus.adapters.providers.e2b.execution import WhySilent

_IN_MEMORY: Final = 4 * 1024 * 1024
_SLOWEST: Final = 256 * 1024
"""Bytes per second below which a transfer counts as broken."""
_AHEAD: Final = 4
"""Chunks that are fetched before anyone asks for them."""
_GLANCE: Final = 0.1
"""Seconds after which a transfer notices that nobody reads any more."""


def read(sandbox: Sandbox, path: str, limit: int, seconds: float, why_silent: WhySilent) -> Iterator[bytes]:
    """The file in chunks, as they arrive. Twice `seconds` without one, and it counts as broken."""
    total = 0
    pieces: queue.Queue[bytes | Exception | None] = queue.Queue(_AHEAD)
    left = threading.Event()
    # In a thread of its own: the SDK's only deadline is for the whole file, whose size nobody knows beforehand.
    whole = seconds + limit / _SLOWEST
    threading.Thread(
        target=_download, args=(sandbox, path, whole, pieces, left), name="nexus-e2b-download", daemon=True
    ).start()
    try:
        while (piece := pieces.get(timeout=2 * seconds)) is not None:
            if isinstance(piece, Exception):
                raise piece
            total += len(piece)
            if total > limit:
                raise InvalidInput(f"{path} has more than the limit of {limit} bytes", path=path)
            yield piece
    except NexusError:
        raise
    except Exception as error:
        fault = TimeoutError("no answer in time") if isinstance(error, queue.Empty) else error
        raise _explained(fault, path, "read a file", why_silent, changes=False) from error
    finally:
        left.set()


def _download(
    sandbox: Sandbox,
    path: str,
    seconds: float,
    pieces: queue.Queue[bytes | Exception | None],
    left: threading.Event,
) -> None:
    """Hand on chunks, and at last None or what went wrong, until the reader has left."""

    def hand_on(piece: bytes | Exception | None) -> None:
        while not left.is_set():
            try:
                pieces.put(piece, timeout=_GLANCE)
            except queue.Full:
                continue
            return

    try:
        with sandbox.files.read(path, format="stream", request_timeout=seconds) as stream:
            for chunk in stream:
                hand_on(bytes(chunk))
                if left.is_set():
                    return
    except Exception as error:  # noqa: BLE001 - handed to the thread that waits
        hand_on(error)
    else:
        hand_on(None)


@contextmanager
def collected(path: str, chunks: Iterable[bytes], limit: int) -> Iterator[tuple[IO[bytes], int]]:
    """What is to be written, whole and known to be within the limit, before anything in the sandbox is touched."""
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as source:
        size = 0
        for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise InvalidInput(f"More than the limit of {limit} bytes for {path}", path=path)
            source.write(chunk)
        source.seek(0)
        yield source, size


def write(sandbox: Sandbox, path: str, source: IO[bytes], size: int, seconds: float, why_silent: WhySilent) -> None:
    """Write what `source` holds; like `read` it takes as long as its size allows."""
    patience = seconds + size / _SLOWEST
    ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def upload() -> None:
        try:
            # Not as a form, which would carry the name in a header where not every name fits.
            data = source.read() if size <= _IN_MEMORY else iter(lambda: source.read(64 * 1024), b"")
            sandbox.files.write(path, data, use_octet_stream=True, request_timeout=patience)
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            ended.put(error)
        else:
            ended.put(None)

    if size <= _IN_MEMORY:
        upload()
    else:
        # The SDK sends what it streams without any deadline.
        threading.Thread(target=upload, name="nexus-e2b-upload", daemon=True).start()
    error: Exception | None
    try:
        error = ended.get(timeout=2 * patience)
    except queue.Empty:
        error = TimeoutError("the upload stands still")
    if error is not None:
        raise _explained(error, path, "write a file", why_silent, changes=True) from error


def _explained(error: Exception, path: str, what: str, why_silent: WhySilent, *, changes: bool) -> NexusError:
    import e2b

    if isinstance(error, e2b.FileNotFoundException):
        return FileNotInSandbox(f"No file {path} in the sandbox", path=path)
    text = str(error)
    if "is a directory" in text or "not a directory" in text:
        return InvalidInput(f"{path} is not a file, or lies below one", path=path)
    fault = translate(error, what, changes=changes)
    if isinstance(fault, ProviderNotRunning | ProviderGone):
        return why_silent() or ProviderUnavailable(f"E2B: {what}: the sandbox does not answer")
    return fault
