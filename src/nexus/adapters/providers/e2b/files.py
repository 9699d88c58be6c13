"""Files in and out of an E2B sandbox."""

from __future__ import annotations

import tempfile
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


def read(sandbox: Sandbox, path: str, limit: int, why_silent: WhySilent) -> Iterator[bytes]:
    """The file in chunks, as they arrive."""
    total = 0
    try:
        with sandbox.files.read(path, format="stream") as stream:
            for chunk in stream:
                total += len(chunk)
                if total > limit:
                    raise InvalidInput(f"{path} has more than the limit of {limit} bytes", path=path)
                yield bytes(chunk)
    except NexusError:
        raise
    except Exception as error:
        raise _explained(error, path, "read a file", why_silent, changes=False) from error


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


def write(sandbox: Sandbox, path: str, source: IO[bytes], why_silent: WhySilent) -> None:
    try:
        # Not as a form, which would carry the name in a header where not every name fits.
        sandbox.files.write(path, iter(lambda: source.read(64 * 1024), b""), use_octet_stream=True)
    except Exception as error:
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
