"""What a command says: data on stdout; hints, progress and warnings on stderr, for people only."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from nexus.cli.terminal import VisibleStream, is_terminal, visible
from nexus.domain.provider import Stream


class Output:
    """`json` and `quiet` are set by the options of the same names."""

    def __init__(self) -> None:
        self.json = False
        self.quiet = False

    # --- data ----------------------------------------------------------------------------------------------------
    def line(self, text: str = "") -> None:
        """One line of data."""
        sys.stdout.write(visible(text, "\t") + "\n")

    def value(self, value: Mapping[str, Any], *, compact: bool = False) -> None:
        """One JSON object: a line when it is `compact` or nobody looks at it, else indented."""
        sys.stdout.write(as_json(value, indent=None if compact or not is_terminal(sys.stdout) else 2) + "\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table: drawn on a terminal, aligned with spaces elsewhere. Empty cells show a dash."""
        safe = [[visible(cell) or "-" for cell in row] for row in rows]
        if is_terminal(sys.stdout):
            _draw(columns, safe)
            return
        lines = [list(columns), *safe]
        widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
        for line in lines:
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            sys.stdout.write("  ".join(padded).rstrip() + "\n")

    def fields(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Names and values, one per line; empty values are left out."""
        shown = [(name, visible(value)) for name, value in pairs if value]
        width = max((len(name) for name, _ in shown), default=0) + 1
        for name, value in shown:
            sys.stdout.write(f"{(name + ':').ljust(width)}  {value}\n")

    def flush(self) -> None:
        sys.stdout.flush()

    # --- for people ----------------------------------------------------------------------------------------------
    def hint(self, text: str) -> None:
        """Something good to know; only where somebody looks."""
        if not (self.quiet or self.json) and is_terminal(sys.stderr):
            sys.stderr.write(visible(text) + "\n")
            sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Something that must not go unseen; JSON says it in its own fields."""
        if not (self.quiet or self.json):
            sys.stderr.write("nexus: " + visible(text) + "\n")
            sys.stderr.flush()

    def problem(self, code: str, message: str, hint: str = "") -> None:
        """What went wrong: one JSON object in JSON mode, else a line and a hint."""
        if self.json:
            sys.stderr.write(as_json({"error": {"code": code, "message": message, "hint": hint}}) + "\n")
        else:
            sys.stderr.write(f"Error: {visible(message)}\n")
            if hint and not self.quiet:
                sys.stderr.write(f"Hint: {visible(hint)}\n")
        sys.stderr.flush()

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[str], None]]:
        """A line that stands on the terminal while something takes its time; what is yielded adds how far it is."""
        if self.quiet or self.json or not is_terminal(sys.stderr):
            yield lambda _: None
            return

        def told(more: str) -> None:
            sys.stderr.write(f"\r\x1b[K{visible(text)} … {visible(more)}")
            sys.stderr.flush()

        sys.stderr.write(f"{visible(text)} …")
        sys.stderr.flush()
        try:
            yield told
        finally:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON in ASCII: the same bytes in every locale, and no character of it acts on a terminal."""
    return json.dumps(value, indent=indent, ensure_ascii=True, allow_nan=False)


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(file=sys.stdout, highlight=False).print(table)


class ProgramOutput:
    """Passes a program's output on as it comes: unchanged into files and pipes, visibly on a terminal.

    Implements the provider port's `OutputSink`. `seen` tells whether there was any.
    """

    def __init__(self) -> None:
        self.seen = False
        self._shown: dict[Stream, VisibleStream] = {}
        for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
            if is_terminal(stream):
                self._shown[name] = VisibleStream()  # type: ignore[index]  # the two names of `Stream`

    def __call__(self, stream: Stream, data: bytes) -> None:
        self.seen = True
        self._write(stream, data, final=False)

    def finish(self) -> None:
        """Give out what was held back because it could have been half a character."""
        for stream in self._shown:
            self._write(stream, b"", final=True)

    def _write(self, stream: Stream, data: bytes, *, final: bool) -> None:
        target = sys.stdout if stream == "stdout" else sys.stderr
        shown = self._shown.get(stream)
        if shown is not None:
            target.write(shown.feed(data, final=final))
        else:
            target.flush()
            target.buffer.write(data)
        target.flush()


class KeptOutput:
    """Keeps a program's output, to be passed on at the end."""

    def __init__(self) -> None:
        self._kept: list[tuple[Stream, bytes]] = []

    def __call__(self, stream: Stream, data: bytes) -> None:
        self._kept.append((stream, data))

    def release(self) -> None:
        passed = ProgramOutput()
        for stream, data in self._kept:
            passed(stream, data)
        passed.finish()
