"""Text that cannot steer a terminal. Names, labels, output and error texts come from strangers."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from typing import IO, Final

_KEPT: Final = "\n\t"


def visible(text: str, keep: str = "") -> str:
    """The text with everything that is not plainly visible written as an escape: `\\x1b`, `\\u202e`.

    `keep` are control characters that may pass. Spaces of other scripts pass; text direction marks and zero-width
    characters do not, because what is shown would not be what is there.
    """
    if text.isprintable():
        return text
    return "".join(
        c
        if c.isprintable() or c in keep or unicodedata.category(c) == "Zs"
        else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


class VisibleStream:
    """Bytes in pieces, out as text for a terminal. Bytes that are not UTF-8 are written as `\\xff`.

    A carriage return passes only as part of a line's end: alone it would let a line overwrite itself.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """What can be shown by now; `final` gives out what was held back."""
        text = self._held + self._decoder.decode(data, final)
        self._held = ""
        if text.endswith("\r") and not final:
            text, self._held = text[:-1], "\r"
        return visible(text.replace("\r\n", "\n"), _KEPT)


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether somebody looks at this stream."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def prepare_streams() -> None:
    """Make standard streams usable whatever this process was started with.

    A closed one is opened on the null device, before any file could get its number; what the locale cannot write is
    written as an escape.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - lives on
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def drop_stdout() -> None:
    """Whoever read our output is gone: let nothing complain about it any more."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, sys.stdout.fileno())
    except (OSError, ValueError):
        pass  # not a stream of the operating system
    finally:
        os.close(null)
